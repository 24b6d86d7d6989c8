"""An endpoint on loopback with every fault: the same answers as without, none lost and none paid for twice."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("httpx")

from hypothesis import given, settings
from hypothesis import strategies as st
from support.oip_server import FAULTS, Server

from art_divqat.errors import UserError
from art_divqat.estimators import RemoteClassifier
from art_divqat.estimators.remote_journal import AnswerJournal, image_key
from art_divqat.estimators.remote_protocols import BadAnswerError, described, protocol_of

SHAPE = (1, 8, 8)
WEIGHTS = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)


def model(x: NDArray[np.float32]) -> NDArray[np.float32]:
    # row by row: a matrix product may round as its size will have it
    return np.stack([image.ravel() @ WEIGHTS for image in x])


def images(count: int = 40, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((count, *SHAPE), dtype=np.float32)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def remote(url: str, path: Path, **options: Any) -> RemoteClassifier:
    settings_ = {"batch_size": 7, "timeout": 0.5, "retries": 12, "sleep": lambda seconds: None, **options}
    return RemoteClassifier(url, SHAPE, 5, journal=path / "answers.jsonl", **settings_)


@pytest.mark.parametrize("form", ["v2", "json"])
def test_with_every_fault_the_same_answers_and_the_same_bill(tmp_path: Path, form: str) -> None:
    x = images()
    with Server(model) as good:
        url = good.v2 if form == "v2" else f"{good.base}/predict"
        expected = remote(url, tmp_path / "good").predict(x)
        bill = good.paid
    faults = itertools.chain.from_iterable((fault, None if i % 2 else fault) for i, fault in enumerate(FAULTS * 2))
    with Server(model, faults) as bad:
        url = bad.v2 if form == "v2" else f"{bad.base}/predict"
        classifier = remote(url, tmp_path / "bad")
        answers = classifier.predict(x)
        assert set(bad.injected) == set(FAULTS)
        assert bad.paid == bill
    np.testing.assert_array_equal(answers, expected)
    np.testing.assert_allclose(answers, model(x), rtol=1e-5)
    assert set(bill.values()) == {1}


def test_nothing_is_asked_twice_by_this_process_or_the_next(tmp_path: Path) -> None:
    x = images()
    with Server(model) as server:
        first = remote(server.v2, tmp_path)
        one = first.predict(np.concatenate([x, x[:5]]))
        np.testing.assert_array_equal(one[:5], one[40:])
        second = remote(server.v2, tmp_path)
        np.testing.assert_array_equal(second.predict(x), one[:40])
        assert second.requests == 0
        assert set(server.paid.values()) == {1}
        np.testing.assert_array_equal(second.repeat(x[:3]), one[:3])
        assert sorted(server.paid.values())[-3:] == [2, 2, 2]


def test_a_fault_that_stays_is_one_line_and_keeps_what_was_paid(tmp_path: Path) -> None:
    x = images()
    pauses: list[float] = []
    with Server(model, iter([None, None, *["500"] * 5])) as server:
        with pytest.raises(UserError, match=r"gave status 500, 5 times in a row. The 14 answers so far are kept"):
            remote(server.v2, tmp_path, retries=4, sleep=pauses.append).predict(x)
        assert pauses == [0.5, 1.0, 2.0, 4.0]
        remote(server.v2, tmp_path).predict(x)
        assert len(server.paid) == 40
        assert set(server.paid.values()) == {1}


def test_a_refusal_is_not_repeated(tmp_path: Path) -> None:
    with Server(lambda x: model(x)[:, :3]) as server:
        with pytest.raises(UserError, match=r"outputs of shape \(7, 3\) where \(7, 5\) was expected, 2 times"):
            remote(server.v2, tmp_path, retries=1).predict(images())
        with pytest.raises(UserError, match="the data has FP32 images of shape"):
            RemoteClassifier(server.v2, (3, 8, 8), 5, journal=tmp_path / "b").predict(
                np.zeros((1, 3, 8, 8), np.float32)
            )


def test_the_credential_goes_into_the_header_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MODEL_TOKEN", "hunter2secret")
    caplog.set_level(0)
    with Server(model, iter(["500", "drop"])) as server:
        classifier = remote(server.v2, tmp_path, auth_env="MODEL_TOKEN")
        classifier.predict(images(3))
        assert {headers["Authorization"] for headers in server.headers} == {"Bearer hunter2secret"}
        other = remote(server.v2, tmp_path / "b", auth_env="MODEL_TOKEN", auth_header="X-Api-Key")
        other.predict(images(3))
        assert server.headers[-1]["X-Api-Key"] == "hunter2secret"
    with pytest.raises(UserError) as error:
        remote(server.v2, tmp_path / "c", auth_env="MODEL_TOKEN", retries=0).predict(images(3))
    shown = "".join(
        [*capfd.readouterr(), caplog.text, str(error.value), str(list(vars(classifier).values())), repr(classifier)]
    )
    assert "hunter2" not in shown
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes()
    with pytest.raises(UserError, match="a credential goes over https only"):
        remote("http://models.example/v2/models/m", tmp_path, auth_env="MODEL_TOKEN")
    monkeypatch.setenv("MODEL_TOKEN", "")
    with pytest.raises(UserError, match="MODEL_TOKEN, which --auth-env names, is empty or not set"):
        remote(server.v2, tmp_path, auth_env="MODEL_TOKEN")


def test_the_rate_is_kept(tmp_path: Path) -> None:
    pauses: list[float] = []
    with Server(model) as server:
        remote(server.v2, tmp_path, rate=10.0, sleep=pauses.append).predict(images(21))
    # three requests of seven images: the second and the third may go 0.7 s and 1.4 s after the first
    assert len(pauses) == 2
    assert 0.6 < pauses[0] <= 0.7
    assert 1.2 < pauses[1] <= 1.4


def test_an_endless_body_is_cut_off(tmp_path: Path) -> None:
    values = [200_000, 5, 60_000]
    with Server(lambda x: np.ones((len(x), values[0]))) as server:
        with pytest.raises(UserError, match=r"a body of more than 4,7\d\d,\d\d\d bytes"):
            remote(server.v2, tmp_path, retries=0, timeout=5).predict(images(7))
        values.pop(0)
        classifier = remote(server.v2, tmp_path, retries=0, timeout=5)
        assert classifier.predict(images(7)).shape == (7, 5)
        values.pop(0)
        # what it answers with is known by now
        with pytest.raises(UserError, match=r"a body of more than 1,0\d\d,\d\d\d bytes"):
            classifier.predict(images(7, seed=2))


def wide(classes: int) -> Any:
    """The model with more classes than the data, whose five are the first."""
    return lambda x: np.concatenate([model(x), np.full((len(x), classes - 5), -9.0)], axis=1)


@pytest.mark.parametrize("form", ["v2", "json"])
@pytest.mark.parametrize("classes", [6, 21_841])
def test_an_endpoint_with_more_classes_than_the_data(tmp_path: Path, form: str, classes: int) -> None:
    x = images(16)
    with Server(wide(classes), iter(["500", None, "nan", None])) as server:
        url = server.v2 if form == "v2" else f"{server.base}/predict"
        classifier = remote(url, tmp_path, timeout=5)
        answers = classifier.predict(x)
        assert answers.shape == (16, classes) == (16, classifier.nb_classes)
        np.testing.assert_array_equal(answers[:, :5], model(x))
        # the next process knows it from the file, and nothing is paid for twice
        again = remote(url, tmp_path, timeout=5)
        assert again.nb_classes == classes
        np.testing.assert_array_equal(again.predict(x), answers)
        assert set(server.paid.values()) == {1}


def test_the_number_of_classes_stays_what_it_was_first(tmp_path: Path) -> None:
    widths = [9, 5, 12]
    with Server(lambda x: np.zeros((len(x), widths[0]))) as server:
        classifier = remote(server.v2, tmp_path, retries=0)
        assert classifier.predict(images(7)).shape == (7, 9)
        for width in (5, 12):
            widths.pop(0)
            with pytest.raises(UserError, match=rf"shape \(7, {width}\) where \(7, 9\) was expected"):
                classifier.predict(images(7, seed=2))


def test_values_of_thousands_of_pixels_are_no_classes(tmp_path: Path) -> None:
    with Server(wide(40_000)) as server, pytest.raises(UserError, match=r"shape \(2, 40000\) where \(2, 5\)"):
        remote(server.v2, tmp_path, retries=0, timeout=5).predict(images(2))


def test_answers_of_two_widths_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    journal = AnswerJournal(path, "http://a", 2)
    assert journal.width is None
    journal.add({"one": np.zeros(4, np.float32)})
    assert AnswerJournal(path, "http://a", 2).width == 4
    journal.add({"two": np.zeros(3, np.float32)})
    with pytest.raises(UserError, match="Line 3 of"):
        AnswerJournal(path, "http://a", 2)


def test_a_torn_line_is_cut_and_a_changed_one_reported(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    journal = AnswerJournal(path, "http://a", 2)
    journal.add({"one": np.array([1, 2], np.float32), "two": np.array([0.1, 0.2], np.float32)})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"image": "thr')
    again = AnswerJournal(path, "http://a", 2)
    assert path.read_bytes() == whole
    np.testing.assert_array_equal(again.get("two"), np.array([0.1, 0.2], np.float32))
    with pytest.raises(UserError, match="of another endpoint"):
        AnswerJournal(path, "http://b", 2)
    path.write_bytes(whole.replace(b'"answer"', b'"anwser"'))
    with pytest.raises(UserError, match=r"Line 2 of .* is not what this program wrote"):
        AnswerJournal(path, "http://a", 2)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["outputs", "shape", "data", "datatype", "predictions", "name"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(record=_JSON, raw=st.binary(max_size=40), v2=st.booleans(), as_json=st.booleans())
def test_whatever_comes_back_is_rows_or_a_bad_answer(record: Any, raw: bytes, v2: bool, as_json: bool) -> None:
    protocol = protocol_of("http://h/v2/models/m", "v2" if v2 else "json")
    try:
        rows = protocol.rows(json.dumps(record).encode() if as_json else raw, 2, 2)
    except (BadAnswerError, UserError):  # the latter for scores by a name that is no class
        return
    assert rows.shape == (2, 2)
    assert np.isfinite(rows).all()


_CLIENT = """
import sys, numpy as np
from pathlib import Path
from art_divqat.estimators import RemoteClassifier
x = np.random.default_rng(1).random((400, 1, 8, 8), dtype=np.float32)
RemoteClassifier(sys.argv[1], (1, 8, 8), 5, journal=Path(sys.argv[2]), batch_size=5).predict(x)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_killed_process_never_pays_twice_for_what_arrived(tmp_path: Path) -> None:
    def slowly(x: NDArray[np.float32]) -> NDArray[np.float32]:
        time.sleep(0.02)
        return model(x)

    path = tmp_path / "answers.jsonl"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with Server(slowly) as server:
        for lines in (60, 200):
            process = subprocess.Popen([sys.executable, "-c", _CLIENT, server.v2, str(path)], env=environment)
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and (not path.exists() or path.read_bytes().count(b"\n") < lines):
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
            time.sleep(0.1)
        subprocess.run([sys.executable, "-c", _CLIENT, server.v2, str(path)], env=environment, check=True, timeout=120)
        x = images(400)
        assert set(server.paid) == {image_key(image) for image in x}
        # only the batch in flight when a process was killed, whose answers had not arrived, may have been asked again
        assert sum(server.paid.values()) <= 400 + 2 * 5
    journal = AnswerJournal(path, server.v2, 5)
    stored = np.stack([answer for image in x if (answer := journal.get(image_key(image))) is not None])
    np.testing.assert_allclose(stored, model(x), rtol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "sent"), [([-1, 1, 8, 8], [2, 1, 8, 8]), ([-1, 8, 8, 1], [2, 8, 8, 1]), ([-1, 64], [2, 64])]
)
def test_a_model_says_how_it_takes_images_and_which_output_holds_the_classes(sizes: list[int], sent: list[int]) -> None:
    record = {
        "inputs": [{"name": "pixels", "datatype": "FP64", "shape": sizes}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1, 1]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, 5]},
        ],
    }
    plain = protocol_of("http://h/v2/models/m", "auto")
    asked = json.loads(described(plain, json.dumps(record).encode(), SHAPE, 5).body(images(2)))
    (tensor,) = asked["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("pixels", "FP64", sent)
    assert asked["outputs"] == [{"name": "scores"}]
    # of a model with more classes, the output that is wider
    wider = json.loads(described(plain, json.dumps(record).encode(), SHAPE, 3).body(images(2)))
    assert wider["outputs"] == [{"name": "scores"}]
    assert "outputs" not in json.loads(described(plain, json.dumps(record).encode(), SHAPE, 7).body(images(2)))
    np.testing.assert_array_equal(np.float32(tensor["data"]), images(2).ravel())
    with pytest.raises(UserError, match="sent channels first or last or flat"):
        described(plain, json.dumps(record).encode(), (3, 8, 8), 5)
    for nothing in (b"", b"{}", b'{"inputs": []}', b"[1]"):
        assert described(plain, nothing, SHAPE, 5) == plain

# art-divqat on a CPU, as a user without rights:
#   docker build -t art-divqat .
#   docker run --rm --network none -v "$PWD:/data" --user "$(id -u):$(id -g)" art-divqat evaluate --limit 200 --seeds 1
# The working folder is /data: models and images are read there, run folders are left there.
FROM python:3.12-slim AS build
# built for its wheels alone, so that neither compilers nor this checkout are in the image that runs
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY art_divqat art_divqat
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
# uv takes torch for the CPU: the usual wheels bring CUDA, several gigabytes of it
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir uv \
    && wheel="$(ls /wheels/*.whl)" \
    && uv pip install --system --no-cache --torch-backend cpu "art-divqat[onnx,remote] @ file://$wheel"
RUN useradd --create-home --uid 10001 auditor && install -d -o auditor /data
USER auditor
# writable for whatever user --user names: kept victims, and matplotlib's list of fonts
ENV XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/cache/matplotlib PYTHONUNBUFFERED=1
WORKDIR /data
ENTRYPOINT ["art-divqat"]
CMD ["--help"]

"""Journal in, files out; never imports torch or ART."""

"""The only place that knows a quantization library."""

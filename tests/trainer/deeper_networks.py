"""Networks that a test of every kind of block need not try."""

DEEPER = {
    **dict.fromkeys(("segformer_b3", "segformer_b4", "segformer_b5"), "segformer_b2"),
    **dict.fromkeys(("pvtv2_b3", "pvtv2_b4"), "pvtv2_b2"),
}
"""Network -> the one that it repeats: it differs only in how often the blocks of a stage come
(tests/trainer/training/test_cuda_dtypes.py compares them)."""

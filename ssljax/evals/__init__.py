"""What a frozen encoder is worth, from features and labels alone.

scikit-learn is imported where it is used, and parts of SciPy import themselves there, so that a run begins without
waiting for them (`benchmarks/start.py` shows how long that is).
"""

"""What `model/save.py` is made of: what may be saved, its pickle, its bytes, and what the file says about itself."""

"""fairbench: which debiasing method makes a medical vision-language model fairer, and is it real?"""

import lazy_loader

__version__ = "0.2.0"

# Public names stand in __init__.pyi and are imported on first use: reading predictions never imports torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__.append("__version__")

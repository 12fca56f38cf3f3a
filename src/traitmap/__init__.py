"""What does each fine-tune do to everything else, why, and which should I pick for my task?

    import traitmap as tm

    study = tm.load_study("study.yaml")
    run = tm.run(study)
    print(run.matrix().gains)

Every command has a twin here with the same words, and so has every record that they give or take. Names are
loaded when they are first used, so that importing the package costs nothing.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

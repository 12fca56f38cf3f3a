from .columns import arrange as arrange
from .discovery import find_evaluations as find_evaluations
from .writing import write_imported as write_imported

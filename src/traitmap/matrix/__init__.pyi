from .build import build_matrix as build_matrix
from .io import read_matrix as read_matrix
from .record import Cell as Cell
from .record import TransferMatrix as TransferMatrix

"""The public names of search."""

from .annealing import Annealing as Annealing
from .annealing import RandomWalk as RandomWalk
from .base import Incumbent as Incumbent
from .base import MakeCost as MakeCost
from .base import Searcher as Searcher
from .catalogue import make_searcher as make_searcher
from .designs import SpreadSampling as SpreadSampling
from .designs import drawn_fraction as drawn_fraction
from .front import Front as Front
from .front import along_front as along_front
from .front import hypervolume as hypervolume
from .genetic import Genetic as Genetic
from .genetic import MakeFloor as MakeFloor
from .names import METHODS as METHODS
from .names import SEARCH_NAMES as SEARCH_NAMES
from .names import Method as Method
from .names import SearchName as SearchName
from .pruning_rules import PruningRule as PruningRule
from .sampling import Candidates as Candidates
from .sampling import Exhaustive as Exhaustive
from .sampling import SingleInterventions as SingleInterventions
from .sampling import UniformSampling as UniformSampling

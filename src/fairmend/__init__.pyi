"""What both wings share. The wings are fairmend.tabular and fairmend.language."""

from .errors import ArtifactError as ArtifactError
from .errors import DataError as DataError
from .errors import FairmendError as FairmendError
from .errors import InputError as InputError
from .errors import ModelError as ModelError
from .errors import RunError as RunError
from .evaluation import Evaluator as Evaluator
from .evaluation import Measurement as Measurement
from .masks import Mask as Mask
from .masks import Space as Space

__version__: str

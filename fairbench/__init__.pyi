"""The public names, and where each is made: read by type checkers, and by the package itself at run time."""

__version__: str

from .data.archives import ArchiveFolder as ArchiveFolder
from .data.archives import Variable as Variable
from .data.bins import Bins as Bins
from .data.dataset import Dataset as Dataset
from .data.image_folder import ImageFolder as ImageFolder
from .data.images import Unreadable as Unreadable
from .data.images import open_array as open_array
from .data.images import open_image as open_image
from .data.tables import read_table as read_table
from .errors import FairbenchError as FairbenchError
from .hookspecs import hookimpl as hookimpl
from .jobs.job import Choice as Choice
from .jobs.job import Job as Job
from .jobs.job import Record as Record
from .jobs.job import Stage as Stage
from .jobs.store import Store as Store
from .metrics.metric import RATES as RATES
from .metrics.metric import Metric as Metric
from .metrics.metric import Undefined as Undefined
from .models.backbone import Backbone as Backbone
from .models.batch import Batch as Batch
from .models.batch import Inputs as Inputs
from .models.batch import Outputs as Outputs
from .models.batch import Rows as Rows
from .models.batch import States as States
from .models.batch import text_positions as text_positions
from .models.byte_tokenizer import tiny_tokenizer as tiny_tokenizer
from .models.checkpoint import checkpoint_fingerprint as checkpoint_fingerprint
from .models.checkpoint import from_checkpoint as from_checkpoint
from .models.huggingface import Family as Family
from .models.huggingface import Pretrained as Pretrained
from .models.huggingface import Tiny as Tiny
from .predictions.groups import Groups as Groups
from .predictions.predictions import Predictions as Predictions
from .predictions.read import read_predictions as read_predictions
from .settings import Count as Count
from .settings import Fraction as Fraction
from .settings import NonNegative as NonNegative
from .settings import Positive as Positive
from .settings import Range as Range
from .training.balance import GroupMeans as GroupMeans
from .training.balance import InverseFrequency as InverseFrequency
from .training.method import Method as Method
from .training.run import Run as Run

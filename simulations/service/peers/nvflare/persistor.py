"""NVFlare's persistor for numpy, which says when a round's weights are saved."""

from pathlib import Path
from typing import Any

from nvflare.app_common.abstract.model import (
    ModelLearnableKey,
    make_model_learnable,
)
from nvflare.app_common.np.constants import NPConstants
from nvflare.app_common.np.np_model_persistor import NPModelPersistor

from simulations.service.workload import NUM_ROUNDS, Marks, start


class MarkingPersistor(NPModelPersistor):
    """Saves as its base does.

    Args:
      folder: Of the run.
      num_weights: Length of the vector.
    """

    def __init__(self, folder: str, num_weights: int) -> None:
        super().__init__()
        self.folder = folder
        self.num_weights = num_weights
        self._num_saved = 0

    def load_model(self, fl_ctx: Any) -> Any:
        """The first weights."""
        del fl_ctx
        Marks(Path(self.folder)).idle()
        weights = {NPConstants.NUMPY_KEY: start(self.num_weights)}
        return make_model_learnable(weights=weights, meta_props={})

    def save_model(self, model_learnable: Any, fl_ctx: Any) -> None:
        """Saves a round's weights; those of the last round are compared."""
        super().save_model(model_learnable, fl_ctx)
        marks = Marks(Path(self.folder))
        marks.round_done()
        self._num_saved += 1
        if self._num_saved == NUM_ROUNDS:
            marks.done(
                model_learnable[ModelLearnableKey.WEIGHTS][NPConstants.NUMPY_KEY]
            )

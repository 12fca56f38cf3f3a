from .every_eval_ever import export_every_eval_ever as export_every_eval_ever
from .lm_eval import export_lm_eval as export_lm_eval
from .model_card import card_section as card_section
from .model_card import update_card as update_card
from .tracking import log_mlflow as log_mlflow
from .tracking import log_trackio as log_trackio

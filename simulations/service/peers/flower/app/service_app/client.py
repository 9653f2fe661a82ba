"""One client; its process is started anew for every message, as Flower does."""

import json

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from simulations.service.workload import Training

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Trains, and answers."""
    about = json.loads(str(context.run_config["about"]))
    position = int(context.node_config["position"])
    training = Training(position, about["weights"], about["batches"])
    (weights,) = message.content["arrays"].to_numpy_ndarrays()
    content = RecordDict(
        {
            "arrays": ArrayRecord([training(weights)]),
            "metrics": MetricRecord({"num-examples": 1000}),
        }
    )
    return Message(content=content, reply_to=message)

"""Real worker processes on loopback, one killed and started again.

In a process of its own, because TensorFlow belongs to a cluster once it is connected.
"""

import subprocess
import sys
import textwrap

import pytest

SCRIPT = textwrap.dedent("""
    import threading
    import time
    from dataclasses import replace

    import numpy as np
    import tensorflow as tf

    from fedtrain.client_work.batching import Epochs
    from fedtrain.client_work.local_sgd import local_sgd
    from fedtrain.core import seeds
    from fedtrain.data.cohorts import uniform_sampler
    from fedtrain.data.dataset import from_clients
    from fedtrain.data.examples import Examples
    from fedtrain.models.dense import dense_classifier
    from fedtrain.optimizers.sgd import sgd
    from fedtrain.rounds.async_run import AsyncRun
    from fedtrain.rounds.fed_avg import fed_avg
    from fedtrain.rounds.train_async import train_async
    from fedtrain.runtimes.asynchronous import thread_executor
    from fedtrain.runtimes import cluster

    model, seed = dense_classifier(4, 3), seeds.root(3)
    random = seeds.generator(seed)
    clients = {
        f"client-{i}": Examples(
            features=random.normal(size=[5 + i, 4]).astype(np.float32),
            labels=random.integers(0, 3, 5 + i),
        )
        for i in range(5)
    }
    round_ = fed_avg(local_sgd(model, sgd(0.01), Epochs(batch_size=4)))
    state = round_.init(model.init(seed))
    phases = ["both up"]
    updates = dict.fromkeys(["both up", "one dead", "back", "other dead"], 0)

    def change_workers(workers):
        addresses = workers.config["cluster"]["worker"]
        while updates["both up"] < 5:
            time.sleep(0.1)
        workers.kill(1)
        phases.append("one dead")
        while updates["one dead"] < 20:
            time.sleep(0.1)
        workers.start(1)
        cluster._wait_until_listening(addresses, 200.0)
        time.sleep(20.0)
        phases.append("back")
        while updates["back"] < 5:
            time.sleep(0.1)
        workers.kill(0)
        phases.append("other dead")

    class EnoughSeen(Exception):
        pass

    def told(report, state):
        updates[phases[-1]] += 1
        if updates["other dead"] == 20:
            raise EnoughSeen

    with cluster.local_workers(2) as workers:
        with cluster.cluster_executor(workers.config) as executor:
            run = AsyncRun(
                round_=round_,
                dataset=from_clients(clients, sensitivity="public"),
                sampler=uniform_sampler(cohort_size=1),
                executor=executor,
                num_rounds=6,
                buffer_goal=1,
                concurrency=1,
                seed=seed,
            )
            there = train_async(run, state).state.weights
            with thread_executor() as threads:
                here = train_async(replace(run, executor=threads), state).state.weights
            for a, b in zip(tf.nest.flatten(there), tf.nest.flatten(here), strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
            print("same weights as in threads", flush=True)
            args = (workers,)
            threading.Thread(target=change_workers, args=args, daemon=True).start()
            long = replace(
                run,
                num_rounds=10**6,
                buffer_goal=2,
                concurrency=4,
                on_round=[told],
            )
            try:
                train_async(long, state)
            except EnoughSeen:
                print("went on without either worker", flush=True)
""")


@pytest.mark.slow
@pytest.mark.network
def test_a_killed_worker_is_missed_by_nobody_and_used_when_it_is_back(tmp_path):
    """With worker 0 dead, only the one that was killed before and is back can go on.

    The process also has to end by itself, although a worker is dead.
    """
    script = tmp_path / "chief.py"
    script.write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines() == [
        "same weights as in threads",
        "went on without either worker",
    ]

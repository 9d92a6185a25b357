"""Makes tests/fixtures/train_tensorboard.tfevents with the tensorboard package, or reads event files with it.

usage: train_tensorboard.py [OUTPUT]        writes the fixture
       train_tensorboard.py --read PATH     prints the scalars of an event file or a folder of them
"""
import pathlib
import sys


def write(path):
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    with open(path, "wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=1700000000.25, file_version="brain.Event:2").SerializeToString())
        for i, (tag, value, step) in enumerate([("train/loss", 3.25, 1), ("train/learning_rate", 2e-4, 1),
                                                ("eval/loss", float("inf"), 300), ("eval/perplexity", 1e30, 1 << 40)]):
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            event = Event(wall_time=1700000001.5 + i, step=step, summary=summary)
            writer.write(event.SerializeToString())
        writer.flush()


def read(path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0})
    accumulator.Reload()
    for tag in accumulator.Tags()["scalars"]:
        print(tag, [(event.step, event.value) for event in accumulator.Scalars(tag)])


if sys.argv[1:2] == ["--read"]:
    read(sys.argv[2])
else:
    default = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "train_tensorboard.tfevents"
    write(sys.argv[1] if len(sys.argv) > 1 else default)

"""The stage after recovery: the slim model learns from its teacher."""

from __future__ import annotations

from dataclasses import replace

from bocr_onnx.options import FinetuneSettings
from bocr_onnx.pipeline.recover import unseen
from bocr_onnx.pipeline.run import Run


def finetune(run: Run) -> Run:
    """Returns the run with its slim model trained; as it is where no finetuning is asked for.

    Raises:
        KeyboardInterrupt: The training was interrupted; its checkpoint is kept, an undertrained model is not a result.
    """
    if not run.options.finetune:
        return run
    from bocr_onnx.pipeline.training import Material, finetune_slim

    slim, images = run.slim, run.images
    assert slim is not None
    assert images is not None
    if not run.resuming:
        run.run_dir.checkpoint.unlink(missing_ok=True)
    trained, record = finetune_slim(
        run.teacher,
        slim.proto,
        Material(images.data, images.split, images.score, images.task),
        settings=FinetuneSettings(epochs=run.options.finetune, seed=run.options.seed),
        progress=run.progress,
        checkpoint=run.run_dir.checkpoint,
    )
    if str(record.get("stopped", "")).startswith("interrupted"):
        raise KeyboardInterrupt
    after, outputs = unseen(run, trained, "Scoring the result on unseen images")
    made = replace(slim, proto=trained, weights=None, after=after, finetune=record, outputs=outputs)
    return replace(run, slim=made)

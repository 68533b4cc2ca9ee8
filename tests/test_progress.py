"""How far an evaluation is."""

from ssljax.progress import progress


def test_lines_say_how_far_it_is_where_there_is_no_terminal(capsys, monkeypatch):
    """What begins, at once; and what goes on, not more often than is good."""
    with progress(2) as (begin, tell):
        begin("pretrained: finetune")
        tell("epoch 1")
        monkeypatch.setattr("ssljax.progress.TOLD", 0.0)
        tell("epoch 2")
        begin("random init: finetune")
    lines = [
        "evaluating 1/2: pretrained: finetune",
        "pretrained: finetune, epoch 2",
        "evaluating 2/2: random init: finetune",
    ]
    assert capsys.readouterr().err.splitlines() == lines

"""After the works of a job: what is left is put into the queue again, or left to a successor."""

from harness.errors import UserError
from harness.launch import scontrol
from harness.launch.children import Signals
from harness.launch.element import Element, finished
from harness.launch.processes import DONE, FAILED, STOPPED
from harness.record import RunFolder

ENDING = 120.0  # seconds that Slurm has to end a job which it said it would


def conclude(element: Element, signals: Signals) -> int:
    """After the works: the job's exit status; what is left is put into the queue again."""
    if not signals.first:
        whole = [finished(RunFolder(one.run_dir), one) for one in element.works]
        if all(whole):
            return DONE
        print(f"{whole.count(False)} of {len(whole)} works have not all their results; their "
              "folders say why", flush=True)  # fmt: skip
        return FAILED
    left = [one for one in element.works if element.left(one)]
    if not left:
        return DONE
    print(f"{len(left)} of {len(element.works)} works are left", flush=True)
    job = element.here.job
    if signals.warned or scontrol.goes_on(job):
        refused = scontrol.requeue(job)
        if not refused:
            print("the job is in the queue again", flush=True)
            _exclude_bad_nodes(element)
        elif scontrol.goes_on(job):
            print(f"the job cannot be requeued: {refused}", flush=True)
            if not _succeed(element):
                print("give the sweep's command again", flush=True)
            return STOPPED
    signals.wait_for_another(ENDING)
    return STOPPED


def _exclude_bad_nodes(element: Element) -> None:
    """Keep the job, now in the queue, off the nodes that its runs were lost with."""
    bad = element.bad_nodes()
    if not bad:
        return
    asked = element.batch.parameters.get("exclude")
    refused = scontrol.exclude(element.here.job, ",".join([asked, *bad] if asked else bad))
    but = f", but Slurm does not take that: {refused}" if refused else ""
    print(f"runs were lost with {', '.join(bad)} twice: not there again{but}", flush=True)


def leaves_bad_node(element: Element) -> bool:
    """Whether a successor elsewhere takes over from a job on a node that its runs were lost with.

    Where Slurm has no other node for it, the job goes on here.
    """
    bad = {*element.bad_nodes()} & {*element.here.nodes}
    if not bad or not any(map(element.left, element.works)):
        return False
    print(f"runs were lost with {', '.join(sorted(bad))} twice", flush=True)
    left = _succeed(element)
    if not left:
        print("it goes on here", flush=True)
    return left


def _succeed(element: Element) -> bool:
    """Where a job must not be requeued, another one goes on with its works: whether it does."""
    try:
        from harness.launch.slurm import succeed

        successor = succeed(element.batch, element.index, element.bad_nodes())
    except (ImportError, UserError, OSError, RuntimeError) as error:
        print(f"no successor could be submitted: {error}", flush=True)
        return False
    print(f"batch {successor.batch_id} goes on with what is left", flush=True)
    return True

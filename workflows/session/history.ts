import { workflowInfo } from '@temporalio/workflow';
import { LIMITS } from '../../contracts/limits.ts';
import type { StopReasonType } from '../../contracts/states.ts';

/** How the loop of a turn leaves it: to the next run, ended in the record, or to be ended for this reason. */
export type LoopEnd = 'continue_as_new' | { recorded: StopReasonType } | { stopReason: StopReasonType; reason: string };

/** True when the run's history should be cut at the next boundary: it is long, or newer workers are there. */
export function historyIsLong(): boolean {
  const info = workflowInfo();
  return (
    info.continueAsNewSuggested ||
    info.historyLength >= LIMITS.historyEvents ||
    info.targetWorkerDeploymentVersionChanged
  );
}

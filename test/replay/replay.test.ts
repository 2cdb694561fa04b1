import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { DeterminismViolationError } from '@temporalio/workflow';
import { bundleWorkflowCode, Worker } from '@temporalio/worker';
import { beforeAll, describe, expect, it } from 'vitest';

const folder = new URL('./histories/', import.meta.url);
const files = readdirSync(folder).toSorted();
const silent = {
  log: () => undefined,
  trace: () => undefined,
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

interface History {
  events: { workflowExecutionStartedEventAttributes?: { workflowType: { name: string }; workflowId: string } }[];
}

function load(file: string): { history: History; type: string; workflowId: string } {
  const history = JSON.parse(readFileSync(new URL(file, folder), 'utf8')) as History;
  const started = history.events[0]?.workflowExecutionStartedEventAttributes;
  if (started === undefined) throw new Error(`${file} does not begin with the start of a workflow`);
  return { history, type: started.workflowType.name, workflowId: started.workflowId };
}

async function bundle(entry: URL): Promise<{ code: string }> {
  const { code } = await bundleWorkflowCode({ workflowsPath: fileURLToPath(entry), logger: silent });
  return { code };
}

describe('replay of recorded histories', () => {
  let today: { code: string };
  beforeAll(async () => {
    today = await bundle(new URL('../../workflows/index.ts', import.meta.url));
  });

  it('has a history of every workflow type and one that was cut by continue-as-new', () => {
    const loaded = files.map(load);
    expect(new Set(loaded.map(({ type }) => type))).toEqual(new Set(['session', 'deploymentRun', 'maintenance']));
    const cut = loaded.filter(({ history }) =>
      JSON.stringify(history.events.at(-1)).includes('workflowExecutionContinuedAsNewEventAttributes'),
    );
    expect(cut.length).toBeGreaterThan(0);
  });

  it.each(files)('%s replays with the workflow code of today', async (file) => {
    const { history, workflowId } = load(file);
    await Worker.runReplayHistory({ workflowBundle: today }, history, workflowId);
  });

  it('fails when the order of activities is changed', async () => {
    const reordered = await bundle(new URL('./reordered.ts', import.meta.url));
    const session = files.find((file) => load(file).type === 'session');
    if (session === undefined) throw new Error('no history of a session');
    const { history, workflowId } = load(session);
    await expect(Worker.runReplayHistory({ workflowBundle: reordered }, history, workflowId)).rejects.toThrow(
      DeterminismViolationError,
    );
  });
});

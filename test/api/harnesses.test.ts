import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { harnessList, type Harness, type HarnessList } from '../../contracts/harness-catalogue.ts';
import { waitUntil } from '../../cli/stack/wait.ts';
import { HARNESS_PACKAGES } from '../../contracts/harness-versions.ts';
import { AGENT_HARNESSES, AVAILABLE_HARNESSES } from '../../contracts/harnesses.ts';
import { BED_PATIENCE_MS } from '../support/bed-driver.ts';
import { installed } from '../support/harnesses.ts';
import { workerBed, type WorkerBed } from '../support/worker.ts';
import { testApi, type TestApi } from './support.ts';

let api: TestApi;
let bed: WorkerBed;
beforeAll(async () => {
  api = await testApi();
  bed = await workerBed(api);
}, BED_PATIENCE_MS);
afterAll(async () => {
  await bed.close();
  await api.close();
}, BED_PATIENCE_MS);

async function harnesses(): Promise<HarnessList & { named: (name: string) => Harness }> {
  const { body } = await api.get('/v1/harnesses').expect(200);
  const list = harnessList.parse(body);
  expect(list.data.map(({ name }) => name)).toEqual(AGENT_HARNESSES);
  return { ...list, named: (name) => list.data.find((each) => each.name === name)! };
}

describe('GET /v1/harnesses', { timeout: BED_PATIENCE_MS }, () => {
  it('says that nobody knows what is installed while no worker answers', async () => {
    const { worker, named } = await harnesses();
    expect(worker).toEqual({ answered: false, reason: 'no worker answered in time' });
    expect(named('opencode')).toMatchObject({ capabilities: null, placements: [], programs: [{ installed: null }] });
    expect(named('native')).toMatchObject({ available: true, programs: [] });
  });

  it('tells what the worker has, what it can and which controls hold', async () => {
    const { binary } = await installed('opencode');
    await bed.start();
    // A busy machine may take longer than the route waits.
    let list = await harnesses();
    await waitUntil(async () => (list = await harnesses()).worker.answered, { what: 'the worker', timeoutMs: 150_000 });
    const { worker, named, data } = list;
    expect(worker).toEqual({ answered: true, reason: null });
    const opencode = named('opencode');
    const { package: npmName, version } = HARNESS_PACKAGES.opencode;
    expect(opencode.programs).toEqual([
      { name: 'opencode', package: npmName, version, licence: 'MIT', installed: binary !== undefined },
    ]);
    expect(opencode.capabilities).toMatchObject({ multi_session: true, hot_reattach: true, remote_tools: true });
    const inline = opencode.placements.find(({ placement }) => placement === 'inline')?.controls;
    expect(inline).toMatchObject({
      tools: { state: 'enforced' },
      cost: { state: 'enforced' },
      credentials: { state: 'enforced' },
      isolation: { state: 'observed' },
    });
    const inside = named('acp').placements.find(({ placement }) => placement === 'sandbox')?.controls;
    // What runs beside the agent in the sandbox has the session's way to the gateway, too.
    expect(inside).toMatchObject({ model: { state: 'observed' }, cost: { state: 'enforced' } });
    for (const harness of data) expect(harness.available).toBe(AVAILABLE_HARNESSES[harness.name] !== undefined);
  });
});

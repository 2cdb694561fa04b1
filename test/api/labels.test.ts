import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { newId } from '../../contracts/ids.ts';
import { createDeploymentSession } from '../../db/queries/deployments.ts';
import { findVirtualKey, mintVirtualKey } from '../../db/queries/virtual-keys.ts';
import { withTransaction } from '../../db/pool.ts';
import { makeAgent, testApi, type TestApi } from './support.ts';

let api: TestApi;
let made: { agentId: string; environmentId: string };
beforeAll(async () => {
  api = await testApi();
  made = await makeAgent(api);
});
afterAll(() => api.close());

const open = (extra: object = {}) =>
  api.post('/v1/sessions', { agent: made.agentId, environment_id: made.environmentId, ...extra });

/** What a call of the session is accounted to. */
async function attributionOf(sessionId: string) {
  const { key } = await mintVirtualKey(api.pool, { teamId: 'team-a', userId: 'ada', sessionId });
  return (await findVirtualKey(api.pool, key))?.attribution;
}

const ids = async (query: string): Promise<string[]> =>
  (await api.get(`/v1/sessions?${query}`).expect(200)).body.data.map(({ id }: { id: string }) => id);

describe('labels and repository', () => {
  it('of a session are shown, found by, and what its calls are accounted to', async () => {
    const answer = await open({ labels: ['nightly', ' docs ', 'docs'], repo: 'acme/shop' }).expect(200);
    expect(answer.body).toMatchObject({ labels: ['nightly', 'docs'], repo: 'acme/shop', trigger: 'api' });
    const plain = await open().expect(200);
    expect(plain.body).toMatchObject({ labels: [], repo: null, trigger: 'api' });
    expect(await ids('label=docs')).toEqual([answer.body.id]);
    expect(await ids('repo=acme%2Fshop&label=nightly')).toEqual([answer.body.id]);
    expect(await ids('label=other')).toEqual([]);
    const id = answer.body.id as string;
    expect(await attributionOf(id)).toMatchObject({
      sessionId: id,
      rootSessionId: id,
      labels: ['nightly', 'docs'],
      repo: 'acme/shop',
      trigger: 'api',
      harness: 'native',
    });
  });

  it('of a deployment go to its sessions, with what fired it', async () => {
    const body = {
      name: 'Nightly',
      agent: made.agentId,
      environment_id: made.environmentId,
      initial_events: [{ type: 'user.message', content: [{ type: 'text', text: 'Tidy up' }] }],
      labels: ['nightly'],
      repo: 'acme/shop',
    };
    const created = await api.post('/v1/deployments', body).expect(200);
    const id = created.body.id as string;
    expect(created.body).toMatchObject({ labels: ['nightly'], repo: 'acme/shop' });
    const run = await api.post(`/v1/deployments/${id}/run`).expect(200);
    const session = await api.get(`/v1/sessions/${run.body.session_id as string}`).expect(200);
    expect(session.body).toMatchObject({
      labels: ['nightly'],
      repo: 'acme/shop',
      trigger: 'manual',
      deployment_id: id,
    });
    const updated = await api.post(`/v1/deployments/${id}`, { labels: ['weekly'], repo: null }).expect(200);
    expect(updated.body).toMatchObject({ labels: ['weekly'], repo: null, name: 'Nightly' });
    expect((await api.post(`/v1/deployments/${id}`, { name: 'Weekly' }).expect(200)).body).toMatchObject({
      labels: ['weekly'],
      name: 'Weekly',
    });
    const fired = await withTransaction(api.pool, (tx) =>
      createDeploymentSession(tx, {
        deploymentId: id,
        workflowId: newId('deploymentRun'),
        trigger: { type: 'schedule', scheduled_at: new Date().toISOString() },
      }),
    );
    expect(await attributionOf(fired?.sessionId ?? '')).toMatchObject({
      labels: ['weekly'],
      repo: null,
      trigger: 'schedule',
      deploymentId: id,
    });
  });

  it.each([
    [{ labels: Array.from({ length: 21 }, (_, index) => `l${index}`) }, 'labels'],
    [{ labels: ['x'.repeat(65)] }, 'labels[0]'],
    [{ labels: [' '] }, 'labels[0]'],
    [{ labels: 'nightly' }, 'labels'],
    [{ repo: 'shop' }, 'repo'],
    [{ repo: 'https://host/acme/shop' }, 'repo'],
    [{ trigger: 'schedule' }, 'trigger'],
    [{ root_session_id: 'sesn_x' }, 'root_session_id'],
  ])('refuse %j', async (extra, field) => {
    expect((await open(extra).expect(400)).body.error).toMatchObject({ code: 'invalid_request', field });
  });
});

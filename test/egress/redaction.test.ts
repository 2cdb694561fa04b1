import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ActivityDeps } from '../../activities/deps.ts';
import { redactContent } from '../../activities/redaction.ts';
import { EgressClient } from '../../egress/client.ts';
import { createControl, type ControlTarget } from '../../egress/control.ts';
import { createLogger } from '../../telemetry/logger.ts';
import { insertEgressRequests } from '../../db/queries/egress-requests.ts';
import type { PolicyBed } from './support.ts';
import { head, NEVER, policyBed } from './support.ts';

const TOKEN = 'a token of the test, long enough for the broker';

let bed: PolicyBed;
let server: ReturnType<typeof createControl>;
let deps: ActivityDeps;
beforeAll(async () => {
  bed = await policyBed();
  const target: ControlTarget = {
    attach: () => Promise.reject(new Error('not here')),
    detach: () => Promise.resolve(false),
    refresh: (sessionId) => bed.policies.refresh(sessionId),
    revoke: (sessionId) => bed.policies.revoke(sessionId),
    redact: (sessionId, texts) => bed.policies.redact(sessionId, texts),
    caCertificate: () => '',
    metrics: () => Promise.resolve({ contentType: 'text/plain', text: '' }),
  };
  server = createControl(target, TOKEN, createLogger('test', 'silent'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  deps = { pool: bed.pool, egress: new EgressClient({ url, token: TOKEN }) } as ActivityDeps;
}, 120_000);
afterAll(async () => {
  server.close();
  await bed.close();
});

const shown = (text: string) => [{ type: 'text' as const, text }];
const clean = (sessionId: string, text: string) => redactContent(deps, sessionId, shown(text), NEVER);

describe('what tools print, before it is stored', () => {
  it('has neither values nor tokens, but its placeholders', async () => {
    const sessionId = await bed.session({ type: 'unrestricted' });
    const { placeholder, value } = await bed.credential(sessionId, {});
    const stray = `ghp_${'aB3dE6gH9jK2mN5pQ8sT'.repeat(2).slice(0, 36)}`;
    expect(
      await clean(sessionId, `${value} ${Buffer.from(`x${value}`).toString('base64')} ${placeholder} ${stray}`),
    ).toEqual(shown(`${placeholder} ${Buffer.from(`x${placeholder}`).toString('base64')} ${placeholder} [redacted]`));
  });

  it('is not stored while the broker cannot look at it, and needs no broker without credentials', async () => {
    const sessionId = await bed.session({ type: 'unrestricted' });
    const without = await bed.session({ type: 'unrestricted' });
    await bed.credential(sessionId, {});
    const away = { ...deps, egress: new EgressClient({ url: 'http://127.0.0.1:9', token: TOKEN }) };
    await expect(redactContent(away, sessionId, shown('x'), NEVER)).rejects.toMatchObject({
      code: 'sandbox_unavailable',
      retryable: true,
    });
    expect(await redactContent(away, without, shown('x'), NEVER)).toEqual(shown('x'));
  });

  it('waits for a vault that is away only when a value may have come to the session', async () => {
    const sessionId = await bed.session({ type: 'unrestricted' });
    const { name } = await bed.credential(sessionId, {});
    bed.secrets.isAway = true;
    try {
      expect(await clean(sessionId, 'x')).toEqual(shown('x'));
      await insertEgressRequests(bed.pool, [
        {
          id: 'egrq_used',
          sandboxId: 'sbx_used',
          seq: 1,
          sessionId,
          teamId: 'team-a',
          state: 'started',
          decision: 'allow',
          rule: 'x',
          code: null,
          method: 'GET',
          host: 'a.test',
          port: 443,
          isTls: true,
          path: '/',
          status: null,
          bytesIn: 0,
          bytesOut: 0,
          durationMs: null,
          credentials: [name],
          approvalId: null,
          count: 1,
          error: null,
          createdAt: new Date().toISOString(),
          endedAt: null,
        },
      ]);
      await expect(clean(sessionId, 'x')).rejects.toMatchObject({ code: 'sandbox_unavailable' });
    } finally {
      bed.secrets.isAway = false;
    }
    expect(await clean(sessionId, 'x')).toEqual(shown('x'));
  });

  it('is looked at after the session has ended, too', async () => {
    const sessionId = await bed.session({ type: 'unrestricted' });
    const { placeholder, value } = await bed.credential(sessionId, {});
    await (await bed.open(sessionId)).request(head('https://a.test/'), NEVER);
    await bed.policies.revoke(sessionId);
    expect(await clean(sessionId, value)).toEqual(shown(placeholder));
  });
});

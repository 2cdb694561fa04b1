import { describe, expect, it } from 'vitest';
import { connectTemporal } from '../../api/temporal.ts';
import { eventually } from '../support/stack.ts';
import { temporalAddress } from '../support/temporal.ts';

describe('the connection to Temporal', () => {
  it.each([
    ['is away, so that its calls wait for a retry', '127.0.0.1:1'],
    ['takes its time', temporalAddress()],
  ])('is closed after the last call has ended, when the server %s', async (_what, address) => {
    const temporal = connectTemporal({ connection: { address }, namespace: 'default' });
    let begun = 0;
    let ended = 0;
    const calls = Array.from({ length: 20 }, (_, index) =>
      temporal
        .withDeadline(30_000, async () => {
          begun += 1;
          // A workflow that does not exist, waited for: the server answers late or never.
          await temporal.client.workflow.getHandle(`nobody-${index}`).describe();
        })
        .catch(() => undefined)
        .finally(() => (ended += 1)),
    );
    await eventually('all calls are under way', () => begun === calls.length);
    await temporal.close();
    expect(ended).toBe(calls.length);
    await expect(
      temporal.withDeadline(1_000, () => temporal.client.workflow.getHandle('x').describe()),
    ).rejects.toThrow();
  });
});

import { rawEndpoint } from '../endpoint.ts';
import type { Services } from '../services.ts';

const CHECK_WAIT_MS = 1_500;

export const getReadiness = rawEndpoint({
  path: '/readyz',
  tag: 'Operation',
  summary: 'Each dependency answers; 503 when one does not',
  public: true,
  contentType: 'application/json',
  async handle({ res, services }) {
    const checks = await Promise.all([
      check('database', async () => {
        await services.pool.query('SELECT 1');
      }),
      check('temporal', () => askTemporal(services)),
    ]);
    const ready = checks.every(([, state]) => state === 'ok');
    // The last good routes are in use then: not well, but ready.
    const routes = services.gatewayProblems().length > 0 ? { model_routes: 'stale' } : {};
    const states = { ...Object.fromEntries(checks), ...routes };
    res.status(ready ? 200 : 503).json({ status: ready ? 'ready' : 'not_ready', checks: states });
  },
});

/** No error text: this page is public. */
async function check(name: string, work: () => Promise<void>): Promise<[string, 'ok' | 'unavailable']> {
  let timer: NodeJS.Timeout | undefined;
  try {
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(new Error('no answer in time')), CHECK_WAIT_MS);
    });
    await Promise.race([work(), late]);
    return [name, 'ok'];
  } catch {
    return [name, 'unavailable'];
  } finally {
    clearTimeout(timer);
  }
}

async function askTemporal({ temporal, config }: Services): Promise<void> {
  await temporal.withDeadline(CHECK_WAIT_MS, () =>
    temporal.client.workflowService.describeNamespace({ namespace: config.temporal.namespace }),
  );
}

import { fileURLToPath } from 'node:url';
import { bundleWorkflowCode } from '@temporalio/worker';
import { describe, expect, it } from 'vitest';

describe('the workflow bundle', () => {
  it('is small and holds neither zod nor pg', async () => {
    const workflowsPath = fileURLToPath(new URL('../../workflows/index.ts', import.meta.url));
    const modules: string[] = [];
    const { code } = await bundleWorkflowCode({
      workflowsPath,
      logger: {
        log: () => undefined,
        trace: () => undefined,
        debug: () => undefined,
        info: (message: string) => modules.push(message),
        warn: () => undefined,
        error: () => undefined,
      },
    });
    expect(code.length).toBeLessThan(1_950_000);
    expect(code).not.toMatch(/node_modules\/(zod|pg|pino|undici|express|@opentelemetry)\//);
    expect(code).toContain('workflows/session/session.ts');
  });
});

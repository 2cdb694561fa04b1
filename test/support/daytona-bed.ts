import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { DaytonaProvider } from '../../activities/sandbox/daytona/provider.ts';
import type { SandboxUnderTest } from '../conformance/sandbox.suite.ts';
import { DaytonaDouble } from '../doubles/daytona/server.ts';
import { startSandboxProcess } from './sandbox-process.ts';

export interface DaytonaBed extends SandboxUnderTest {
  double: DaytonaDouble;
  provider: DaytonaProvider;
}

/** The adapter over the vendor's SDK, in this process, over a double of the service with real sandboxes. */
export async function makeDaytonaBed(): Promise<DaytonaBed> {
  const double = await new DaytonaDouble().start();
  const rootDir = mkdtempSync(path.join(os.tmpdir(), 'longhaul-daytona-bed-'));
  const options = { apiKey: double.apiKey, apiUrl: double.apiUrl };
  const processes: { kill(): Promise<void> }[] = [];
  return {
    double,
    provider: new DaytonaProvider(options),
    another: () => {
      const started = startSandboxProcess({ rootDir, uid: null, provider: { name: 'daytona', daytona: options } });
      processes.push(started);
      return Promise.resolve(started);
    },
    close: async () => {
      for (const each of processes) await each.kill();
      await double.close();
      rmSync(rootDir, { recursive: true, force: true });
    },
  };
}

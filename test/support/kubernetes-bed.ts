import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { KubernetesProvider } from '../../activities/sandbox/kubernetes/provider.ts';
import type { SandboxUnderTest } from '../conformance/sandbox.suite.ts';
import { KubernetesDouble } from '../doubles/kubernetes/server.ts';
import { startSandboxProcess } from './sandbox-process.ts';

export interface KubernetesBed extends SandboxUnderTest {
  double: KubernetesDouble;
  provider: KubernetesProvider;
}

/** The adapter over the official client, in this process, over a double of a cluster's API with real sandboxes as pods. */
export async function makeKubernetesBed(): Promise<KubernetesBed> {
  const double = await new KubernetesDouble().start();
  const rootDir = mkdtempSync(path.join(os.tmpdir(), 'longhaul-kubernetes-bed-'));
  const options = { namespace: double.namespace, kubeconfigFile: double.kubeconfigFile };
  const processes: { kill(): Promise<void> }[] = [];
  return {
    double,
    provider: new KubernetesProvider(options),
    another: () => {
      const started = startSandboxProcess({
        rootDir,
        uid: null,
        provider: { name: 'kubernetes', kubernetes: options },
      });
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

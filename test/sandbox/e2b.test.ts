import { E2bProvider } from '../../activities/sandbox/e2b/provider.ts';
import { sandboxConformance, type SandboxUnderTest } from '../conformance/sandbox.suite.ts';
import { makeE2bBed } from '../support/e2b-server.ts';
import { startSandboxProcess } from '../support/sandbox-process.ts';

const MIB = 1024 * 1024;

/**
 * The SDK as it is on both generations of the wire, against the shipped server over local sandboxes. They differ in the
 * control plane alone: commands and files go to the daemon inside, by the same calls.
 */
for (const [name, sdk, scope] of [
  ['e2b 2.51', 'e2b', 'all'],
  ['e2b 2.50, the older wire', 'e2b-older', 'control'],
] as const) {
  const make = async (): Promise<SandboxUnderTest> => {
    const bed = await makeE2bBed({ LONGHAUL_E2B_MAX_SANDBOXES: '200' });
    const options = { apiKey: bed.apiKey, apiUrl: bed.server.url, sandboxUrl: bed.server.url, package: sdk };
    const processes: ReturnType<typeof startSandboxProcess>[] = [];
    const { home } = bed;
    return {
      provider: new E2bProvider(options),
      another: () => {
        const provider = { name: 'e2b', e2b: options };
        const made = startSandboxProcess({ rootDir: home, uid: null, provider });
        processes.push(made);
        return Promise.resolve(made);
      },
      bigFileBytes: 16 * MIB,
      close: async () => {
        for (const each of processes) await each.kill();
        await bed.close();
      },
    };
  };
  sandboxConformance(name, make, scope);
}

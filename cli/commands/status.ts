import type { CliConfig } from '../config.ts';
import { EXIT, print, printJson } from '../output.ts';
import { stackHealth } from '../stack/health.ts';
import { homePaths } from '../stack/home.ts';

/** Says what runs in this home; the exit code is 0 only when all of it is well. */
export async function status(config: CliConfig, options: { json: boolean }): Promise<number> {
  const paths = homePaths(config.home);
  const { state, roles, apiReady, egressReady, devJson } = await stackHealth(paths);
  const code = state === 'running' ? EXIT.ok : EXIT.failed;
  if (options.json) {
    // The key and the database password stay in dev.json: this output ends up in bug reports.
    const { apiUrl, gatewayUrl, egressUrl, temporalAddress, temporalNamespace, temporalUiUrl } = devJson ?? {};
    const addresses = { apiUrl, gatewayUrl, egressUrl, temporalAddress, temporalNamespace, temporalUiUrl };
    printJson({ home: paths.home, state, apiReady, egressReady, roles, ...addresses });
    return code;
  }
  print(`${state}  ${paths.home}`);
  for (const [role, { pid, alive }] of Object.entries(roles)) {
    print(`  ${role.padEnd(11)} ${alive ? 'alive' : 'gone '}  pid ${pid}`);
  }
  if (devJson !== null) {
    print(`  api         ${apiReady ? 'ready' : 'not ready'}  ${devJson.apiUrl}`);
    print(`  egress      ${egressReady ? 'ready' : 'not ready'}  ${devJson.egressUrl}`);
    print(`  temporal    ${devJson.temporalAddress}  ${devJson.temporalUiUrl ?? ''}`);
  }
  if (state === 'stopped') print('  start it with `longhaul dev --detach`');
  if (state === 'orphaned') print('  its supervisor was killed: `longhaul dev` or `longhaul stop` cleans up');
  return code;
}

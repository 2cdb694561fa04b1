import { LonghaulError } from '../../contracts/error-codes.ts';
import { readConfig as readServerConfig } from '../../facades/e2b/config.ts';
import { serveE2b } from '../../facades/e2b/serve.ts';
import { createLogger } from '../../telemetry/logger.ts';
import { inheritedEnvironment, type CliConfig } from '../config.ts';
import { EXIT, say } from '../output.ts';
import { homePaths, prepareHome, readDevJson } from '../stack/home.ts';

/** Serves E2B's wire over local sandboxes until a signal; with DATABASE_URL, or beside the running stack. */
export async function e2bServer(
  config: CliConfig,
  options: { port?: number; allowInternet?: boolean },
): Promise<number> {
  const paths = homePaths(config.home);
  const dev = readDevJson(paths);
  const databaseUrl = config.databaseUrl ?? dev?.databaseUrl;
  if (databaseUrl === undefined) {
    throw new LonghaulError('setup_required', 'Set DATABASE_URL, or start the local stack with `longhaul dev`');
  }
  prepareHome(paths);
  const settings = readServerConfig({
    // Beside the running stack its broker is the way out.
    ...(dev === null ? {} : { LONGHAUL_EGRESS_URL: dev.egressUrl, LONGHAUL_EGRESS_TOKEN_FILE: paths.egressToken }),
    ...inheritedEnvironment(),
    DATABASE_URL: databaseUrl,
    LONGHAUL_HOME: config.home,
    ...(options.allowInternet === true ? { LONGHAUL_E2B_ALLOW_INTERNET: '1' } : {}),
    ...(options.port === undefined ? {} : { LONGHAUL_E2B_PORT: String(options.port) }),
  });
  const { url, close } = await serveE2b(settings, createLogger('e2b', settings.logLevel));
  say(`E2B programs: E2B_API_URL=${url} E2B_SANDBOX_URL=${url} E2B_API_KEY=<an API key of Longhaul>`);
  await new Promise<void>((resolve) => {
    process.once('SIGTERM', () => resolve());
    process.once('SIGINT', () => resolve());
  });
  await close();
  return EXIT.ok;
}

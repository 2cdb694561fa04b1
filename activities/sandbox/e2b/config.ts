import type { E2bOptions } from './sdk.ts';

/** E2B's own names: what its programs have set works here, too. Undefined without a key: then there is no such provider. */
export function readE2bConfig(env: NodeJS.ProcessEnv): E2bOptions | undefined {
  const value = (name: string): string | undefined => (env[name] === '' ? undefined : env[name]);
  const apiKey = value('E2B_API_KEY');
  if (apiKey === undefined) return undefined;
  const given = {
    apiUrl: value('E2B_API_URL'),
    sandboxUrl: value('E2B_SANDBOX_URL'),
    domain: value('E2B_DOMAIN'),
    template: value('LONGHAUL_E2B_TEMPLATE'),
    package: value('LONGHAUL_E2B_PACKAGE'),
  };
  return { apiKey, ...Object.fromEntries(Object.entries(given).filter(([, each]) => each !== undefined)) };
}

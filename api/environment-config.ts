import type {
  CloudEnvironment,
  EnvironmentConfig,
  EnvironmentRepository,
  IdlePolicy,
} from '../contracts/definitions.ts';
import { defaultEnvironment } from '../contracts/environment-defaults.ts';
import type { EnvironmentConfigParam } from '../contracts/environments.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import { resolveNetworking } from '../contracts/networking.ts';
import { looksSecret } from './secret-values.ts';

type CloudParam = Extract<EnvironmentConfigParam, { type: 'cloud' }>;

/** Variables the sandbox itself needs; an environment that set them would cut it off from the broker. */
const RESERVED =
  /^(?:(?:https?|all|no|ftp)_proxy|node_extra_ca_certs|ssl_cert_file|requests_ca_bundle|curl_ca_bundle|git_ssl_cainfo|pip_cert|npm_config_cafile|aws_ca_bundle|deno_cert|longhaul_\w*)$/i;

/** An environment's config as stored: defaults applied, contradictions refused. */
export function resolveEnvironment(param: EnvironmentConfigParam | null | undefined): EnvironmentConfig {
  if (param?.type === 'self_hosted') return { type: 'self_hosted' };
  const defaults = defaultEnvironment();
  if (param === undefined || param === null) return defaults;
  const provider = param.provider ?? defaults.provider;
  const image = param.image ?? null;
  if (provider === 'local' && image !== null) {
    throw refused('config.image', 'local sandboxes use the programs of the machine; choose docker for an image');
  }
  return {
    type: 'cloud',
    networking: resolveNetworking(param.networking),
    packages: resolvePackages(param),
    provider,
    image,
    resources: { ...defaults.resources, ...given(param.resources) },
    setup_script: emptyIsNull(param.setup_script),
    repositories: resolveRepositories(param),
    env: resolveEnv(param.env ?? {}),
    idle: resolveIdle({ ...defaults.idle, ...given(param.idle) }),
  };
}

function refused(field: string, message: string): LonghaulError {
  return new LonghaulError('invalid_request', message, { field });
}

/** What was given of an object: absent keys and undefined ones keep their defaults. */
function given<T extends object>(part: T | null | undefined): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(part ?? {}).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}

function emptyIsNull(text: string | null | undefined): string | null {
  return text === undefined || text === '' ? null : text;
}

function resolvePackages({ packages }: CloudParam): CloudEnvironment['packages'] {
  return {
    type: 'packages',
    apt: packages?.apt ?? [],
    cargo: packages?.cargo ?? [],
    gem: packages?.gem ?? [],
    go: packages?.go ?? [],
    npm: packages?.npm ?? [],
    pip: packages?.pip ?? [],
  };
}

function resolveRepositories({ repositories }: CloudParam): EnvironmentRepository[] {
  const taken = new Set<string>();
  return (repositories ?? []).map((param, index) => {
    const mountPath = param.mount_path ?? defaultMountPath(param.url);
    const field = `config.repositories[${index}].mount_path`;
    if (mountPath === undefined) throw refused(field, 'is needed: the URL does not end in a name');
    requireFreePath(taken, mountPath, field);
    return {
      url: param.url,
      branch: param.branch ?? null,
      commit: param.commit ?? null,
      mount_path: mountPath,
      credential: param.credential ?? null,
    };
  });
}

/** No repository inside another one. */
export function requireFreePath(taken: Set<string>, mountPath: string, field: string): void {
  for (const other of taken) {
    if (`${mountPath}/`.startsWith(`${other}/`) || `${other}/`.startsWith(`${mountPath}/`)) {
      throw refused(field, `${mountPath} and ${other} are in each other's way`);
    }
  }
  taken.add(mountPath);
}

/** `/workspace/<name of the repository>`, as Managed Agents has it. */
export function defaultMountPath(url: string): string | undefined {
  const name = new URL(url).pathname
    .replace(/\/+$/, '')
    .split('/')
    .at(-1)
    ?.replace(/\.git$/, '');
  return name !== undefined && /^(?!\.{1,2}$)[\w.@+-]+$/.test(name) ? `/workspace/${name}` : undefined;
}

function resolveEnv(env: Record<string, string>): Record<string, string> {
  for (const [name, value] of Object.entries(env)) {
    const field = `config.env.${name}`;
    if (RESERVED.test(name)) throw refused(field, 'is set by the sandbox itself');
    if (value.includes('\0')) throw refused(field, 'must not contain NUL');
    if (looksSecret(name, value)) {
      throw refused(field, 'looks like a secret; put it into a vault, and sandboxes get a placeholder for it');
    }
  }
  return env;
}

function resolveIdle(idle: IdlePolicy): IdlePolicy {
  const { pause_after_seconds: pause, snapshot_after_seconds: save, destroy_after_seconds: destroy } = idle;
  if (destroy !== null && destroy < Math.max(pause, save ?? 0)) {
    throw refused('config.idle.destroy_after_seconds', 'must not come before pausing and saving');
  }
  return idle;
}

import type { CredentialSpec } from '../contracts/credentials.ts';
import type { CloudEnvironment, EnvironmentConfig, EnvironmentRepository } from '../contracts/definitions.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import { newId } from '../contracts/ids.ts';
import { LIMITS } from '../contracts/limits.ts';
import { repositoryHost, repositoryPaths, withRepositoryRules } from '../contracts/repository-rules.ts';
import type {
  FileResourceParam,
  RepositoryResourceParam,
  SessionResourceShown,
  StoredRepositoryResource,
  StoredSessionResource,
} from '../contracts/session-resources.ts';
import type { Queryable } from '../db/pool.ts';
import type { Principal } from '../db/queries/api-keys.ts';
import { getCredential, insertCredential, newCredentialId, replaceVersion } from '../db/queries/credentials.ts';
import type { SessionRow } from '../db/queries/sessions.ts';
import { insertVault } from '../db/queries/vaults.ts';
import type { KeyRing } from '../vault/key-ring.ts';
import { sealParts } from '../vault/seal.ts';
import { learnShape } from '../vault/shape.ts';
import { defaultMountPath, requireFreePath } from './environment-config.ts';
import { renderFileResource, resolveFile } from './session-files.ts';
import { auditCredential } from './vaults.ts';

/** What a session gets beside what its request says. */
interface Resolved {
  resources: StoredSessionResource[];
  environment: EnvironmentConfig;
  /** A vault of the session's own, when a resource brought a token. */
  vaultIds: string[];
}

/** What resources are resolved with. */
interface Given {
  principal: Principal;
  vaultKeys: KeyRing;
}

/**
 * The resources of a new session: its repositories become part of its environment, for its whole life, and their tokens
 * credentials of a vault that ends with the session. Each repository opens its own paths of its host, nothing else. Files
 * may lie in repositories, so these are settled first.
 */
export async function resolveResources(
  db: Queryable,
  given: Given,
  environment: EnvironmentConfig,
  params: readonly (RepositoryResourceParam | FileResourceParam)[],
): Promise<Resolved> {
  if (environment.type !== 'cloud') return { resources: [], environment, vaultIds: [] };
  const { repositories, vaultId } = await resolveRepositories(db, given, environment, params);
  const withThem = withRepositories(environment, [...repositories.values()]);
  const resources: StoredSessionResource[] = [];
  for (const [index, param] of params.entries()) {
    const repository = repositories.get(index);
    if (repository !== undefined) resources.push(repository);
    if (param.type !== 'file') continue;
    const place = { teamId: given.principal.teamId, environment: withThem, resources };
    resources.push(await resolveFile(db, place, param, { field: `resources[${index}].`, late: false }));
  }
  return { resources, environment: withThem, vaultIds: vaultId === null ? [] : [vaultId] };
}

/** The repositories among the resources, by their index. */
async function resolveRepositories(
  db: Queryable,
  given: Given,
  environment: CloudEnvironment,
  params: readonly (RepositoryResourceParam | FileResourceParam)[],
): Promise<{ repositories: Map<number, StoredRepositoryResource>; vaultId: string | null }> {
  const taken = new Set(environment.repositories.map(({ mount_path: at }) => at));
  const repositories = new Map<number, StoredRepositoryResource>();
  let vaultId: string | null = null;
  for (const [index, param] of params.entries()) {
    if (param.type !== 'github_repository') continue;
    const field = `resources[${index}]`;
    if (repositories.size === LIMITS.repositories) {
      throw new LonghaulError('invalid_request', `a session brings at most ${LIMITS.repositories} repositories`, {
        field,
      });
    }
    const at = param.mount_path ?? defaultMountPath(param.url);
    if (at === undefined) {
      throw new LonghaulError('invalid_request', 'is needed: the URL does not end in a name', {
        field: `${field}.mount_path`,
      });
    }
    requireFreePath(taken, at, `${field}.mount_path`);
    const id = newId('sessionResource');
    const { type, url, checkout, authorization_token: token } = param;
    if (token !== undefined) vaultId ??= await ownVault(db, given.principal);
    const credential =
      token === undefined || vaultId === null ? null : await storeToken(db, given, { vaultId, name: id, url, token });
    const now = new Date().toISOString();
    const shown = { id, type, url, mount_path: at, checkout: checkout ?? null, created_at: now, updated_at: now };
    repositories.set(index, { ...shown, credential });
  }
  return { repositories, vaultId };
}

async function ownVault(db: Queryable, principal: Principal): Promise<string> {
  const owner = { teamId: principal.teamId, createdBy: principal.userId };
  return (await insertVault(db, owner, { displayName: 'Tokens of one session', metadata: { longhaul: 'session' } })).id;
}

async function storeToken(
  db: Queryable,
  { principal, vaultKeys }: Given,
  held: { vaultId: string; name: string; url: string; token: string },
): Promise<{ vaultId: string; credentialId: string }> {
  const { teamId } = principal;
  const id = newCredentialId();
  const place = { teamId, vaultId: held.vaultId, credentialId: id, version: 1 };
  const row = await insertCredential(db, {
    id,
    teamId,
    vaultId: held.vaultId,
    kind: 'git',
    name: held.name,
    displayName: held.url,
    metadata: {},
    spec: { ...tokenSpec(held.url), parts: { value: 1 } },
    shape: learnShape(held.token),
    version: {
      value: sealParts(vaultKeys, place, { value: held.token }),
      secretRef: null,
      expiresAt: null,
      createdBy: principal.userId,
    },
  });
  await auditCredential(db, principal, 'create', row);
  return { vaultId: held.vaultId, credentialId: id };
}

/** For git over https and for this repository only. */
function tokenSpec(url: string): Omit<CredentialSpec, 'parts'> {
  return {
    env: null,
    hosts: [repositoryHost(url)],
    unrestricted: false,
    locations: ['header', 'basic'],
    headerName: 'authorization',
    template: null,
    username: 'x-access-token',
    methods: null,
    paths: repositoryPaths(url).map((path) => `${path}/*`),
    mcpServerUrl: null,
    refresh: null,
  };
}

function withRepositories(environment: CloudEnvironment, resources: StoredRepositoryResource[]): CloudEnvironment {
  const added = resources.map(({ url, mount_path, checkout, credential }): EnvironmentRepository => {
    const branch = checkout?.type === 'branch' ? checkout.name : null;
    const commit = checkout?.type === 'commit' ? checkout.sha : null;
    return { url, branch, commit, mount_path, credential: credential?.credentialId ?? null };
  });
  return withRepositoryRules({ ...environment, repositories: [...environment.repositories, ...added] });
}

/** Without what only we need to know. */
export function renderResource(resource: StoredSessionResource): SessionResourceShown {
  if (resource.type === 'file') return renderFileResource(resource);
  const { credential: _credential, ...shown } = resource;
  return shown;
}

/** Throws `not_found`. */
export function requireResource({ id, resources }: SessionRow, resourceId: string): StoredSessionResource {
  const found = resources.find((resource) => resource.id === resourceId);
  if (found !== undefined) return found;
  throw new LonghaulError('not_found', `session ${id} has no resource ${resourceId.slice(0, 64)}`);
}

/** The next version of a token; placeholders stay what they are. */
export async function replaceToken(
  db: Queryable,
  { principal, vaultKeys }: Given,
  { vaultId, credentialId: id }: { vaultId: string; credentialId: string },
  token: string,
): Promise<void> {
  const place = { teamId: principal.teamId, vaultId, id };
  const before = await getCredential(db, place, { lock: true });
  const version = before.currentVersion + 1;
  await replaceVersion(db, id, {
    version,
    value: sealParts(vaultKeys, { teamId: principal.teamId, vaultId, credentialId: id, version }, { value: token }),
    secretRef: null,
    spec: { ...before.spec, parts: { value: version } },
    expiresAt: null,
    createdBy: principal.userId,
  });
  await auditCredential(db, principal, 'rotate', await getCredential(db, place));
}

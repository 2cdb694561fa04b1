import { z } from 'zod';
import { gitBranch, gitCommit, gitUrl, mountPath } from './environments.ts';
import { time } from './fields.ts';
import { LIMITS } from './limits.ts';
import { idParam } from './paging.ts';

const checkout = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('branch'), name: gitBranch }),
  z.strictObject({ type: z.literal('commit'), sha: gitCommit }),
]);
/** A token as it stands in a header: one line, no spaces. */
const token = z
  .string()
  .min(1)
  .max(4_096)
  .regex(/^[\x21-\x7e]+$/, 'must be one line of printable ASCII without spaces')
  .meta({ description: 'Write-only: it goes into a vault, and never into a sandbox', writeOnly: true });

const githubRepository = z
  .strictObject({
    type: z.literal('github_repository'),
    url: gitUrl,
    authorization_token: token.optional(),
    checkout: checkout.nullish(),
    mount_path: mountPath.nullish(),
  })
  .meta({ id: 'GithubRepositoryResourceParam' });

const NAME_BYTES = 255;
/** Below /workspace or /mnt/session, canonical. Outputs are what the session makes; the folders of uploads are no files. */
const fileMountPath = z
  .string()
  .max(LIMITS.mountPathChars)
  .regex(
    /^\/(workspace|mnt\/session(?!\/(outputs(\/|$)|uploads$)))(\/(?!\.{1,2}(\/|$))[\p{L}\p{M}\p{N} \w.,@+=()~-]+)+$/u,
    'must be the path of a file below /workspace or /mnt/session, but not in /mnt/session/outputs',
  )
  .refine((path) => path.split('/').every((name) => new TextEncoder().encode(name).length <= NAME_BYTES), {
    error: `has a name of more than ${NAME_BYTES} bytes`,
  });

const file = z
  .strictObject({
    type: z.literal('file'),
    file_id: idParam,
    mount_path: fileMountPath.nullish().meta({ description: 'Default: `/mnt/session/uploads/<file_id>`' }),
  })
  .meta({ id: 'FileResourceParam' });

export const sessionResourceParams = z
  .array(
    z.discriminatedUnion('type', [githubRepository, file], {
      error: 'only github_repository and file are supported yet',
    }),
  )
  .max(LIMITS.repositories + LIMITS.sessionFiles);
type SessionResourceParam = z.infer<typeof sessionResourceParams>[number];
export type RepositoryResourceParam = Extract<SessionResourceParam, { type: 'github_repository' }>;
export type FileResourceParam = Extract<SessionResourceParam, { type: 'file' }>;
export const sessionResourceAdd = z.discriminatedUnion('type', [file], {
  error: 'only a file can be added to a session; open another one with the repository',
});

const shown = { id: z.string(), mount_path: z.string(), created_at: time, updated_at: time };
const repositoryResource = z
  .object({ ...shown, type: z.literal('github_repository'), url: z.string(), checkout: checkout.nullable() })
  .meta({ id: 'GithubRepositoryResource' });
export const fileResource = z
  .object({ ...shown, type: z.literal('file'), file_id: z.string() })
  .meta({ id: 'FileResource' });
export const sessionResource = z
  .discriminatedUnion('type', [repositoryResource, fileResource])
  .meta({ id: 'SessionResource' });
export type SessionResourceShown = z.infer<typeof sessionResource>;

/** The token is sealed in a vault of the session's own. */
export interface StoredRepositoryResource extends z.infer<typeof repositoryResource> {
  credential: { vaultId: string; credentialId: string } | null;
}
export interface StoredFileResource extends z.infer<typeof fileResource> {
  /** Added to a running session: its agent is told when it is there. */
  late: boolean;
}
/** As stored in `sessions.resources`. */
export type StoredSessionResource = StoredRepositoryResource | StoredFileResource;

export const sessionResourcePath = z.object({ session_id: z.string(), resource_id: z.string() });
export const sessionResourceUpdate = z
  .strictObject({ authorization_token: token })
  .meta({ id: 'SessionResourceUpdate' });
export const sessionResourceDeleted = z.object({ id: z.string(), type: z.literal('session_resource_deleted') });

import type { EnvironmentResource } from '../../contracts/environments.ts';
import type { EnvironmentRow } from '../../db/queries/environments.ts';
import { isoOrNull } from './times.ts';

export function renderEnvironment(row: EnvironmentRow): EnvironmentResource {
  return {
    id: row.id,
    type: 'environment',
    name: row.name,
    description: row.description,
    config: row.config,
    metadata: row.metadata,
    scope: 'organization',
    created_at: row.createdAt.toISOString(),
    updated_at: row.updatedAt.toISOString(),
    archived_at: isoOrNull(row.archivedAt),
  };
}

import type { z } from 'zod';
import type { FileMetadata, fileLink, fileLinkCreate, fileLinksRevoked } from '../contracts/files.ts';
import type { Http, Query } from './http.ts';
import { type Deleted, type Paged, pathsOf } from './paths.ts';

/** Files of the team: what was uploaded, and what sessions left in their outputs. */
export function filesOf(http: Http) {
  const at = pathsOf('files');
  return {
    upload: (file: Blob, name: string, options: { expiresInSeconds?: number } = {}) => {
      const form = new FormData();
      if (options.expiresInSeconds !== undefined) form.set('expires_in_seconds', String(options.expiresInSeconds));
      form.set('file', file, name);
      return http.post<FileMetadata>('/v1/files', form);
    },
    get: (id: string) => http.get<FileMetadata>(at(id)),
    list: (query: Query = {}) => http.get<Paged<FileMetadata>>('/v1/files', query),
    /** The open answer: read its body, or cancel it. */
    download: (id: string, signal?: AbortSignal) => http.stream(at(id, '/content'), {}, {}, signal),
    delete: (id: string) => http.delete<Deleted>(at(id)),
    /** A link that opens the file without a key; it is shown once. */
    link: (id: string, body: z.input<typeof fileLinkCreate> = {}) =>
      http.post<z.infer<typeof fileLink>>(at(id, '/links'), body),
    revokeLinks: (id: string) => http.delete<z.infer<typeof fileLinksRevoked>>(at(id, '/links')),
  };
}

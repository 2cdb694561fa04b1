import type { skillDeleted, SkillResource, skillVersionDeleted, SkillVersionResource } from '../contracts/skills.ts';
import type { z } from 'zod';
import type { Http, Query } from './http.ts';
import { type Paged, pathsOf } from './paths.ts';

/** A file of a skill; `path` begins with the skill's folder. */
export interface SkillFile {
  path: string;
  content: Blob;
}

/** Skills of the team: folders with a SKILL.md, in versions. */
export function skillsOf(http: Http) {
  const at = pathsOf('skills');
  const versionAt = (id: string, version: string, rest = ''): string =>
    at(id, `/versions/${encodeURIComponent(version)}${rest}`);
  return {
    create: (files: readonly SkillFile[]) => http.post<SkillResource>('/v1/skills', formOf(files)),
    get: (id: string) => http.get<SkillResource>(at(id)),
    list: (query: Query = {}) => http.get<Paged<SkillResource>>('/v1/skills', query),
    delete: (id: string) => http.delete<z.infer<typeof skillDeleted>>(at(id)),
    versions: {
      create: (id: string, files: readonly SkillFile[]) =>
        http.post<SkillVersionResource>(at(id, '/versions'), formOf(files)),
      get: (id: string, version: string) => http.get<SkillVersionResource>(versionAt(id, version)),
      list: (id: string, query: Query = {}) => http.get<Paged<SkillVersionResource>>(at(id, '/versions'), query),
      delete: (id: string, version: string) => http.delete<z.infer<typeof skillVersionDeleted>>(versionAt(id, version)),
      /** The open answer, a zip archive: read its body, or cancel it. */
      content: (id: string, version: string, signal?: AbortSignal) =>
        http.stream(versionAt(id, version, '/content'), {}, {}, signal),
    },
  };
}

function formOf(files: readonly SkillFile[]): FormData {
  const form = new FormData();
  for (const { path, content } of files) form.append('files[]', content, path);
  return form;
}

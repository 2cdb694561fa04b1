import { readFile } from 'node:fs/promises';
import type { GatewayFile } from '../../contracts/model-routes.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { importLitellm, isLitellmConfig } from './litellm-import.ts';

/** A configuration file as it was read. */
export interface RouteFile {
  file: GatewayFile;
  format: 'longhaul' | 'litellm';
  taken: string[];
  ignored: string[];
  masterKeyVariable: string | undefined;
}

/** Reads a gateway's file, ours or LiteLLM's; the error names the field that is wrong. */
export async function readRouteFile(path: string, variable: (name: string) => string | undefined): Promise<RouteFile> {
  const text = await readFile(path, 'utf8');
  if (text.length > LIMITS.requestBodyBytes) throw new LonghaulError('setup_required', `${path} is too large`);
  return parseRouteFile(text, variable);
}

/** The same for a text that is there already. */
export async function parseRouteFile(text: string, variable: (name: string) => string | undefined): Promise<RouteFile> {
  // Loaded here: a gateway without a file needs neither.
  const [{ parse }, { gatewayFile }] = await Promise.all([import('yaml'), import('../../contracts/model-routes.ts')]);
  const value: unknown = parse(text);
  if (value === null || value === undefined) throw new LonghaulError('setup_required', 'it is empty');
  const isLitellm = isLitellmConfig(value);
  const imported = isLitellm
    ? importLitellm(value, variable)
    : { file: value, taken: [], ignored: [], masterKeyVariable: undefined };
  const parsed = gatewayFile.safeParse(imported.file);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new LonghaulError('setup_required', issue?.message ?? 'is not valid', {
      field: issue?.path.map(String).join('.') ?? '',
    });
  }
  return { ...imported, file: parsed.data, format: isLitellm ? 'litellm' : 'longhaul' };
}

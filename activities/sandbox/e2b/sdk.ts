import type * as E2b from 'e2b';
import { LonghaulError } from '../../../contracts/error-codes.ts';

/** The SDK, of whatever release. */
export type Sdk = typeof E2b;

export interface E2bOptions {
  apiKey: string;
  /** Absent: E2B's own addresses. */
  apiUrl?: string;
  sandboxUrl?: string;
  domain?: string;
  /** Template of sandboxes that name none. */
  template?: string;
  /** The SDK's name where it is installed under another one, an older release for a control plane without /v2 routes. */
  package?: string;
}

const REQUEST_MS = 60_000;
const loaded = new Map<string, Promise<Sdk>>();

/** The SDK, which is loaded when it is first needed: it is an optional peer. */
export async function loadSdk(options: E2bOptions): Promise<Sdk> {
  const name = options.package ?? 'e2b';
  const known = loaded.get(name) ?? (import(name) as Promise<Sdk>);
  loaded.set(name, known);
  try {
    return await known;
  } catch (error) {
    loaded.delete(name);
    throw new LonghaulError('setup_required', `sandboxes at E2B need its SDK: run \`npm install ${name}\``, {
      cause: error,
    });
  }
}

/** What each call is made with. */
export function connection(options: E2bOptions, signal?: AbortSignal): object {
  const { apiKey, apiUrl, sandboxUrl, domain } = options;
  return {
    apiKey,
    requestTimeoutMs: REQUEST_MS,
    ...(apiUrl === undefined ? {} : { apiUrl }),
    ...(sandboxUrl === undefined ? {} : { sandboxUrl }),
    ...(domain === undefined ? {} : { domain }),
    ...(signal === undefined ? {} : { signal }),
  };
}

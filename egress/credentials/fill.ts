import type { SessionCredential } from '../../contracts/credentials.ts';
import type { HeaderList, RequestHead } from '../decision.ts';
import { basicOf, decoded } from './find.ts';

/** A credential with its value, for one request. */
export interface Filled {
  credential: SessionCredential;
  value: string;
}

/** The head with values in the place of placeholders, and headers that the sandbox does not send itself. */
export function fillHead(head: RequestHead, swapped: readonly Filled[], injected: readonly Filled[]): RequestHead {
  const headers: (readonly [string, string])[] = head.headers.map(([name, value]) => [
    name,
    fillHeader(name, value, swapped),
  ]);
  for (const filled of injected) {
    const name = headerOf(filled.credential);
    if (!headers.some(([known]) => known === name)) headers.push([name, injectedValue(filled)]);
  }
  return { ...head, headers, query: head.query === null ? null : fillQuery(head.query, swapped) };
}

/** The header that a credential is put in where the sandbox sends none. */
export function headerOf(credential: SessionCredential): string {
  return (credential.headerName ?? 'authorization').toLowerCase();
}

/** True for a credential that needs nothing from the sandbox. */
export function isInjected(credential: SessionCredential): boolean {
  if (credential.template !== null)
    return credential.locations.includes('header') || credential.locations.includes('basic');
  return credential.kind === 'git' && credential.username !== null && credential.locations.includes('basic');
}

function injectedValue({ credential, value }: Filled): string {
  if (credential.template === null) {
    return `Basic ${Buffer.from(`${credential.username ?? ''}:${value}`).toString('base64')}`;
  }
  return credential.template.split('{value}').join(value);
}

function fillHeader(name: string, value: string, swapped: readonly Filled[]): string {
  const basic = basicOf(name, value);
  const filledBasic = basic === undefined ? undefined : fill(basic, swapped, 'basic');
  if (filledBasic !== undefined && filledBasic !== basic) {
    return `Basic ${Buffer.from(filledBasic, 'latin1').toString('base64')}`;
  }
  return fill(value, swapped, 'header');
}

/** Only components with a placeholder are written anew: signatures and odd escapes of others stay as they are. */
function fillQuery(query: string, swapped: readonly Filled[]): string {
  return query.replaceAll(/[^&=]+/g, (component) => {
    const plain = decoded(component);
    if (!swapped.some(({ credential }) => plain.includes(credential.placeholder))) return component;
    const text = Buffer.from(plain.replaceAll('+', ' '), 'latin1').toString();
    return encodeURIComponent(fill(text, swapped, 'query'));
  });
}

/** Values in headers go as bytes of UTF-8, one character each, as headers are written. */
function fill(text: string, swapped: readonly Filled[], place: 'header' | 'basic' | 'query'): string {
  let filled = text;
  for (const { credential, value } of swapped) {
    if (!filled.includes(credential.placeholder)) continue;
    const bytes = place === 'query' ? value : Buffer.from(value).toString('latin1');
    filled = filled.split(credential.placeholder).join(bytes);
  }
  return filled;
}

/** False for a value that would break a header apart. */
export function fitsHeader(value: string): boolean {
  return !/\p{Cc}/u.test(value.replaceAll('\t', ''));
}

export function withoutHeader(headers: HeaderList, ...names: string[]): HeaderList {
  return headers.filter(([name]) => !names.includes(name));
}

export function headerValue(headers: HeaderList, name: string): string | undefined {
  return headers.find(([known]) => known === name)?.[1];
}

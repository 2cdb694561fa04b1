import canonicalize from 'canonicalize';
import { digestOf } from '../digest.ts';
import type { Prompt } from './prompt.ts';

/** What the gateway is told of a prompt's static parts, so that it can watch them without reading the prompt. */
export function prefixHeader({ tools, system, skills }: Pick<Prompt, 'tools' | 'system' | 'skills'>): string {
  const sizeBytes = Buffer.byteLength(`${canonicalize(tools) ?? ''}${system}${canonicalize(skills) ?? ''}`);
  return `tools=${digestOf(tools)} system=${digestOf(system)} skills=${digestOf(skills)} bytes=${sizeBytes}`;
}

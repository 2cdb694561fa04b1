import type * as client from '@kubernetes/client-node';
import { LonghaulError } from '../../../contracts/error-codes.ts';

export type KubernetesClient = typeof client;

const PACKAGE = '@kubernetes/client-node';

/** The official client, loaded when it is first needed: it is an optional peer of 67 megabytes. */
export async function loadKubernetes(name: string = PACKAGE): Promise<KubernetesClient> {
  try {
    return (await import(name)) as KubernetesClient;
  } catch (error) {
    const text = String(error);
    const isMissing = (error as NodeJS.ErrnoException).code === 'ERR_MODULE_NOT_FOUND' && text.includes(`'${name}'`);
    if (!isMissing) throw error;
    throw new LonghaulError(
      'sandbox_unsupported',
      `the provider kubernetes needs the official client: npm install ${name}`,
    );
  }
}

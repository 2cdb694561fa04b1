import { z } from 'zod';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { KubernetesOptions } from './provider.ts';

const MINUTE_MS = 60_000;
const NAME = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;
const LABEL = /^([A-Za-z0-9./_-]{1,127})=([A-Za-z0-9._-]{0,63})$/;

const schema = z.object({
  LONGHAUL_KUBERNETES_NAMESPACE: z.string().regex(NAME).optional(),
  LONGHAUL_KUBERNETES_CONFIG: z.string().min(1).optional(),
  LONGHAUL_KUBERNETES_CONTEXT: z.string().min(1).optional(),
  LONGHAUL_KUBERNETES_IMAGE: z.string().min(1).optional(),
  LONGHAUL_KUBERNETES_RUNTIME_CLASS: z.string().regex(NAME).optional(),
  LONGHAUL_KUBERNETES_STORAGE_CLASS: z.string().regex(NAME).optional(),
  LONGHAUL_KUBERNETES_BROKER_LABELS: z.string().optional(),
  LONGHAUL_KUBERNETES_TEMPLATE_TRUST: z.enum(['true', 'false']).default('false'),
  LONGHAUL_KUBERNETES_TTL_MINUTES: z.coerce.number().int().min(60).max(525_600).optional(),
});

/** The cluster this worker uses; undefined without a namespace. Throws an error that names the variable. */
export function readKubernetesConfig(env: NodeJS.ProcessEnv = process.env): KubernetesOptions | undefined {
  const parsed = schema.safeParse(Object.fromEntries(Object.entries(env).filter(([, value]) => value !== '')));
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new LonghaulError('setup_required', issue?.message ?? 'invalid', { field: issue?.path.join('.') ?? 'env' });
  }
  const { data } = parsed;
  if (data.LONGHAUL_KUBERNETES_NAMESPACE === undefined) return undefined;
  const ttlMinutes = data.LONGHAUL_KUBERNETES_TTL_MINUTES;
  const given = {
    kubeconfigFile: data.LONGHAUL_KUBERNETES_CONFIG,
    context: data.LONGHAUL_KUBERNETES_CONTEXT,
    defaultImage: data.LONGHAUL_KUBERNETES_IMAGE,
    runtimeClassName: data.LONGHAUL_KUBERNETES_RUNTIME_CLASS,
    storageClassName: data.LONGHAUL_KUBERNETES_STORAGE_CLASS,
    brokerLabels: labelsOf(data.LONGHAUL_KUBERNETES_BROKER_LABELS),
    maxIdleMs: ttlMinutes === undefined ? undefined : ttlMinutes * MINUTE_MS,
  };
  return {
    namespace: data.LONGHAUL_KUBERNETES_NAMESPACE,
    templateTrust: data.LONGHAUL_KUBERNETES_TEMPLATE_TRUST === 'true',
    ...(Object.fromEntries(
      Object.entries(given).filter(([, value]) => value !== undefined),
    ) as Partial<KubernetesOptions>),
  };
}

function labelsOf(text: string | undefined): Record<string, string> | undefined {
  if (text === undefined) return undefined;
  const found: Record<string, string> = {};
  for (const each of text.split(',')) {
    const [, name, value] = LABEL.exec(each.trim()) ?? [];
    if (name === undefined || value === undefined) {
      throw new LonghaulError('setup_required', 'is a list of label=value, separated by commas', {
        field: 'LONGHAUL_KUBERNETES_BROKER_LABELS',
      });
    }
    found[name] = value;
  }
  return found;
}

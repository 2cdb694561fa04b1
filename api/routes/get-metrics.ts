import { rawEndpoint } from '../endpoint.ts';

export const getMetrics = rawEndpoint({
  path: '/metrics',
  tag: 'Operation',
  summary: 'Metrics in the Prometheus text format',
  contentType: 'text/plain',
  async handle({ res, services }) {
    const { registry } = services.metrics;
    res.type(registry.contentType).send(await registry.metrics());
  },
});

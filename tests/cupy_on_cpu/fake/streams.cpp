// Streams, events, graphs: what is launched is done at once, or noted, where a stream captures.
#include <chrono>

#include "fakecuda.h"

static thread_local cudaError_t last_error;
cudaError_t sticky;
cudaError_t E(int e) {
    if (e) last_error = (cudaError_t)e;
    return (cudaError_t)e;
}

API cudaError_t cudaGetLastError() {
    auto e = last_error;
    last_error = cudaSuccess;
    return sticky ? sticky : e;
}
API cudaError_t cudaPeekAtLastError() { return sticky ? sticky : last_error; }

struct StreamRec {
    unsigned flags = 0;
    int priority = 0;
    std::shared_ptr<GraphRec> graph;  // being recorded
    bool origin = false, broken = false;
    int mode = 0;
};
struct EventRec {
    double at = -1;
    std::shared_ptr<GraphRec> graph;
    bool recorded = false;
    unsigned flags = 0;
};
static std::set<StreamRec*>& streams() {
    static auto* s = new std::set<StreamRec*>;
    return *s;
}
static std::set<EventRec*>& events() {
    static auto* s = new std::set<EventRec*>;
    return *s;
}

static double now_ms() {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}
static bool is_default(void* s) { return (uintptr_t)s <= 2; }
static StreamRec* rec(void* s) {
    if (is_default(s)) return nullptr;
    auto r = (StreamRec*)s;
    return streams().count(r) ? r : nullptr;
}
static bool bad_stream(void* s) { return !is_default(s) && !rec(s); }
// What the usual stream does disturbs each recording on a stream that waits for it.
static int legacy_conflict() {
    int e = 0;
    for (auto s : streams())
        if (s->graph && !(s->flags & cudaStreamNonBlocking))
            s->broken = true, e = cudaErrorStreamCaptureImplicit;
    return e;
}
// Calls that a recording in a strict mode does not allow.
int unsafe_call() {
    int e = 0;
    for (auto s : streams())
        if (s->graph && s->mode != cudaStreamCaptureModeRelaxed)
            s->broken = true, e = cudaErrorStreamCaptureUnsupported;
    return e;
}
static bool any_capture() {
    for (auto s : streams())
        if (s->graph) return true;
    return false;
}

int fc_submit(void* stream, FCKind kind, const std::string& name, std::function<int()> work) {
    Hold hold(big);
    if (sticky) return sticky;
    if (bad_stream(stream)) return cudaErrorInvalidResourceHandle;
    if (auto s = rec(stream); s && s->graph) {
        if (s->broken) return cudaErrorStreamCaptureInvalidated;
        fc_count(FC_GRAPH_NODE, name);
        s->graph->nodes.push_back({kind, name, std::move(work)});
        return 0;
    }
    if (is_default(stream))
        if (int e = legacy_conflict()) return e;
    fc_count(kind, name);
    double begun = stats_on ? now_ms() : 0;
    int e = work();
    if (stats_on) fc_time(kind, name, now_ms() - begun);
    if (e == cudaErrorIllegalAddress || e == cudaErrorLaunchFailure) sticky = (cudaError_t)e;
    return e;
}

API cudaError_t cudaDeviceSynchronize() {
    Hold hold(big);
    fc_count(FC_DEVICE_SYNC, "");
    if (any_capture()) {
        for (auto s : streams())
            if (s->graph) s->broken = true;
        return E(cudaErrorStreamCaptureUnsupported);
    }
    return E(sticky);
}
API cudaError_t cudaStreamCreateWithPriority(cudaStream_t* out, unsigned flags, int priority) {
    Hold hold(big);
    auto s = new StreamRec;
    s->flags = flags;
    s->priority = priority;
    streams().insert(s);
    *out = (cudaStream_t)s;
    return cudaSuccess;
}
API cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned flags) {
    return cudaStreamCreateWithPriority(out, flags, 0);
}
API cudaError_t cudaStreamCreate(cudaStream_t* out) { return cudaStreamCreateWithPriority(out, 0, 0); }
API cudaError_t cudaStreamGetFlags(cudaStream_t s, unsigned* f) {
    Hold hold(big);
    auto r = rec(s);
    *f = r ? r->flags : 0;
    return E(bad_stream(s) ? cudaErrorInvalidResourceHandle : 0);
}
API cudaError_t cudaStreamGetPriority(cudaStream_t s, int* p) {
    Hold hold(big);
    auto r = rec(s);
    *p = r ? r->priority : 0;
    return E(bad_stream(s) ? cudaErrorInvalidResourceHandle : 0);
}
API cudaError_t cudaStreamDestroy(cudaStream_t s) {
    Hold hold(big);
    auto r = rec(s);
    if (!r) return E(cudaErrorInvalidResourceHandle);
    streams().erase(r);
    delete r;
    return cudaSuccess;
}
static int wait_for(void* s) {
    if (bad_stream(s)) return cudaErrorInvalidResourceHandle;
    if (auto r = rec(s); r && r->graph) {
        r->broken = true;
        return cudaErrorStreamCaptureUnsupported;
    }
    if (is_default(s))
        if (int e = legacy_conflict()) return e;
    return sticky;
}
API cudaError_t cudaStreamSynchronize(cudaStream_t s) {
    Hold hold(big);
    fc_count(FC_STREAM_SYNC, "");
    return E(wait_for(s));
}
API cudaError_t cudaStreamQuery(cudaStream_t s) {
    Hold hold(big);
    return E(wait_for(s));
}
API cudaError_t cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t f, void* data, unsigned) {
    return E(fc_submit(s, FC_LIBRARY, "callback", [=] {
        f(s, cudaSuccess, data);
        return 0;
    }));
}
API cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void* data) {
    return E(fc_submit(s, FC_LIBRARY, "host function", [=] {
        f(data);
        return 0;
    }));
}
API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned flags) {
    Hold hold(big);
    auto e = new EventRec;
    e->flags = flags;
    events().insert(e);
    *out = (cudaEvent_t)e;
    return cudaSuccess;
}
API cudaError_t cudaEventCreate(cudaEvent_t* out) { return cudaEventCreateWithFlags(out, 0); }
API cudaError_t cudaEventDestroy(cudaEvent_t e) {
    Hold hold(big);
    events().erase((EventRec*)e);
    delete (EventRec*)e;
    return cudaSuccess;
}
API cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    Hold hold(big);
    if (bad_stream(s)) return E(cudaErrorInvalidResourceHandle);
    auto ev = (EventRec*)e;
    fc_count(FC_EVENT_RECORD, "");
    auto r = rec(s);
    ev->graph = r ? r->graph : nullptr;
    ev->recorded = true;
    ev->at = now_ms();
    return cudaSuccess;
}
API cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
    Hold hold(big);
    if (bad_stream(s)) return E(cudaErrorInvalidResourceHandle);
    auto ev = (EventRec*)e;
    auto r = rec(s);
    if (ev->graph) {
        if (!r) return E(cudaErrorStreamCaptureImplicit);
        if (!r->graph) {
            r->graph = ev->graph;
            r->origin = false;
        }
    } else if (r && r->graph && ev->recorded)
        return E(cudaErrorStreamCaptureIsolation);
    return cudaSuccess;
}
API cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    Hold hold(big);
    fc_count(FC_EVENT_SYNC, "");
    return E(((EventRec*)e)->graph ? cudaErrorCapturedEvent : sticky);
}
API cudaError_t cudaEventQuery(cudaEvent_t e) {
    Hold hold(big);
    return E(((EventRec*)e)->graph ? cudaErrorCapturedEvent : sticky);
}
API cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t a, cudaEvent_t b) {
    *ms = ((EventRec*)b)->at - ((EventRec*)a)->at;
    return cudaSuccess;
}

API cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode) {
    Hold hold(big);
    auto r = rec(s);
    if (!r) return E(is_default(s) ? cudaErrorStreamCaptureUnsupported : cudaErrorInvalidResourceHandle);
    if (r->graph || env_on("FAKECUDA_NO_CAPTURE")) return E(cudaErrorStreamCaptureUnsupported);
    r->graph = std::make_shared<GraphRec>();
    r->origin = true;
    r->broken = false;
    r->mode = mode;
    return cudaSuccess;
}
API cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* out) {
    Hold hold(big);
    *out = nullptr;
    auto r = rec(s);
    if (!r || !r->graph || !r->origin) return E(cudaErrorInvalidValue);
    auto graph = r->graph;
    bool broken = r->broken;
    for (auto t : streams())
        if (t->graph == graph) {
            broken |= t->broken;
            t->graph = nullptr;
            t->broken = false;
        }
    for (auto e : events())
        if (e->graph == graph) {
            e->graph = nullptr;
            e->recorded = false;
        }
    if (broken) return E(cudaErrorStreamCaptureInvalidated);
    *out = (cudaGraph_t) new std::shared_ptr<GraphRec>(graph);
    return cudaSuccess;
}
API cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus* status) {
    Hold hold(big);
    if (bad_stream(s)) return E(cudaErrorInvalidResourceHandle);
    if (is_default(s)) {
        *status = cudaStreamCaptureStatusNone;
        for (auto t : streams())
            if (t->graph && !(t->flags & cudaStreamNonBlocking)) return E(cudaErrorStreamCaptureImplicit);
        return cudaSuccess;
    }
    auto r = rec(s);
    *status = !r->graph   ? cudaStreamCaptureStatusNone
              : r->broken ? cudaStreamCaptureStatusInvalidated
                          : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}
API cudaError_t cudaGraphDestroy(cudaGraph_t g) {
    delete (std::shared_ptr<GraphRec>*)g;
    return cudaSuccess;
}
API cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) {
    delete (std::shared_ptr<GraphRec>*)g;
    return cudaSuccess;
}
API cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t g, unsigned long long) {
    *out = (cudaGraphExec_t) new std::shared_ptr<GraphRec>(*(std::shared_ptr<GraphRec>*)g);
    return cudaSuccess;
}
API cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
API cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t s) {
    auto graph = *(std::shared_ptr<GraphRec>*)g;
    return E(fc_submit(s, FC_GRAPH_LAUNCH, std::to_string(graph->nodes.size()) + " nodes", [=] {
        for (auto& n : graph->nodes)
            if (int e = n.work()) return e;
        return 0;
    }));
}
API cudaError_t cudaGraphDebugDotPrint(cudaGraph_t, const char*, unsigned) {
    return E(cudaErrorNotSupported);
}

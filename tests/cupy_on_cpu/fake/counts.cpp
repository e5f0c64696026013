// What was asked of the fake GPU: counted, by kinds and by names, and told at exit (FAKECUDA_STATS).
#include <algorithm>
#include <atomic>

#include "fakecuda.h"

static const char* KIND_NAMES[FC_NKINDS] = {"launch", "gemm", "copy_to_device", "copy_to_host",
    "copy_on_device", "copy_on_host", "memset", "stream_sync", "device_sync", "event_sync", "sync_copy",
    "malloc", "free", "host_alloc", "graph_launch", "graph_node", "module_load", "compile", "library",
    "event_record"};
static std::atomic<long> counters[FC_NKINDS];
static std::mutex names_lock;
static std::map<std::string, long>& names() {
    static auto* m = new std::map<std::string, long>;
    return *m;
}
static std::map<std::string, double>& times() {
    static auto* m = new std::map<std::string, double>;
    return *m;
}
static bool trace_on = env_on("FAKECUDA_TRACE");
bool stats_on = env_on("FAKECUDA_STATS");

void fc_count(FCKind kind, const std::string& name) {
    counters[kind]++;
    if (trace_on) fprintf(stderr, "[fakecuda] %s %s\n", KIND_NAMES[kind], name.c_str());
    std::lock_guard<std::mutex> hold(names_lock);
    names()[std::string(KIND_NAMES[kind]) + ":" + name]++;
}
void fc_time(FCKind kind, const std::string& name, double milliseconds) {
    times()[std::string(KIND_NAMES[kind]) + ":" + name] += milliseconds;
}
API long fakecuda_get(const char* kind) {
    for (int i = 0; i < FC_NKINDS; i++)
        if (!strcmp(kind, KIND_NAMES[i])) return counters[i];
    return -1;
}
API void fakecuda_reset() {
    for (auto& c : counters) c = 0;
    std::lock_guard<std::mutex> hold(names_lock);
    names().clear();
}
API const char* fakecuda_kinds() {
    static std::string all;
    if (all.empty())
        for (auto k : KIND_NAMES) all += std::string(k) + " ";
    return all.c_str();
}
// "kind:name count" lines; valid until the next call.
API const char* fakecuda_names() {
    static std::string text;
    std::lock_guard<std::mutex> hold(names_lock);
    text.clear();
    for (auto& n : names()) text += n.first + "\t" + std::to_string(n.second) + "\n";
    return text.c_str();
}
API void fakecuda_trace(int on) { trace_on = on; }

__attribute__((destructor)) static void report() {
    if (!stats_on) return;
    fprintf(stderr, "[fakecuda]");
    for (int i = 0; i < FC_NKINDS; i++)
        if (counters[i]) fprintf(stderr, " %s=%ld", KIND_NAMES[i], counters[i].load());
    fprintf(stderr, "\n");
    std::vector<std::pair<double, std::string>> slow;
    for (auto& t : times()) slow.push_back({t.second, t.first});
    std::sort(slow.rbegin(), slow.rend());
    for (size_t i = 0; i < slow.size() && i < 12; i++)
        fprintf(stderr, "[fakecuda] %8.0f ms %7ld x %s\n", slow[i].first, names()[slow[i].second],
            slow[i].second.c_str());
}

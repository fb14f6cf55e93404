# Targets: i2sb_rt::i2sb_rt (shared, for C and C++) and i2sb_rt::i2sb_rt_static (links the C++ runtime).
include(CMakeFindDependencyMacro)
find_dependency(Threads)
include(${CMAKE_CURRENT_LIST_DIR}/i2sb_rt-targets.cmake)

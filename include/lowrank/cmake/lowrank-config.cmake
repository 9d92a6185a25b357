# What find_package(lowrank) reads. lowrank::lowrank and lowrank::kernels need nothing but threads; lowrank::files is there
# where its libraries are, and find_package(lowrank COMPONENTS files) insists on them.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
include(${CMAKE_CURRENT_LIST_DIR}/lowrank-targets.cmake)

include(${CMAKE_CURRENT_LIST_DIR}/lowrank-dependencies.cmake)
lowrank_require(nlohmann_json nlohmann-json3-dev)
lowrank_require_library(pcre2-8 pcre2.h libpcre2-dev)
if(NOT DEFINED lowrank_FOUND AND NOT EXISTS ${CMAKE_CURRENT_LIST_DIR}/lowrank-files-targets.cmake)
  set(lowrank_FOUND FALSE)
  set(lowrank_NOT_FOUND_MESSAGE "this lowrank was installed with -DLOWRANK_FILES=OFF")
endif()
if(NOT DEFINED lowrank_FOUND)
  include(${CMAKE_CURRENT_LIST_DIR}/lowrank-files-targets.cmake)
elseif(NOT lowrank_FIND_REQUIRED_files)
  unset(lowrank_FOUND)
  unset(lowrank_NOT_FOUND_MESSAGE)
endif()

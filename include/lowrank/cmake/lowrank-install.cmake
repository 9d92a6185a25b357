# Installation: the headers, the compiled kernels, and what find_package(lowrank) reads.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(lowrank_package ${CMAKE_INSTALL_LIBDIR}/cmake/lowrank)
set(lowrank_cmake ${CMAKE_CURRENT_SOURCE_DIR}/include/lowrank/cmake)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/lowrank-config-version.cmake COMPATIBILITY SameMinorVersion)
install(DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/include/lowrank DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.hpp" PATTERN "*.inc" PATTERN "cmake" EXCLUDE)
install(FILES ${lowrank_cmake}/lowrank-config.cmake ${lowrank_cmake}/lowrank-dependencies.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/lowrank-config-version.cmake
        DESTINATION ${lowrank_package})

set_target_properties(lowrank_kernels PROPERTIES EXPORT_NAME kernels)
target_include_directories(lowrank INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
install(TARGETS lowrank lowrank_kernels EXPORT lowrank)
install(EXPORT lowrank NAMESPACE lowrank:: FILE lowrank-targets.cmake DESTINATION ${lowrank_package})
if(TARGET lowrank_files)
  set_target_properties(lowrank_files PROPERTIES EXPORT_NAME files)
  install(TARGETS lowrank_files EXPORT lowrank_files)
  install(EXPORT lowrank_files NAMESPACE lowrank:: FILE lowrank-files-targets.cmake DESTINATION ${lowrank_package})
endif()
